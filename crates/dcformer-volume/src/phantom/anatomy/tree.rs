//! Trees that fill the lungs: airways, arteries and veins.

use super::super::random::Random;
use super::super::scene::{Point, add, between, length, scale, subtract};

/// A tree of round segments, the root first.
#[derive(Clone, Debug)]
pub(in super::super) struct Tree {
    /// Where the nodes are.
    pub(in super::super) points: Vec<Point>,
    /// Index of each node's parent; the root is its own.
    pub(in super::super) parents: Vec<usize>,
    /// Radius of the segment from the parent to each node, millimetres.
    pub(in super::super) radii: Vec<f32>,
}

/// How branches merge: `r^n` of the parent is the sum of the children's (Murray's law has n = 3).
const MURRAY_EXPONENT: f32 = 2.7;
/// Weight of the way already gone against the way to go: large values give straight, small values short branches.
const STRAIGHTNESS: f32 = 0.55;
/// Longest segment without a bend, millimetres.
const LONGEST_SEGMENT: f32 = 22.0;

impl Tree {
    /// Connects `leaves` to `root`, nearest first, each to the node that makes its way short and straight.
    pub(in super::super) fn grow(
        root: Point,
        mut leaves: Vec<Point>,
        leaf_radius: f32,
        random: &mut Random,
    ) -> Self {
        let away = |point: &Point| length(subtract(*point, root));
        leaves.sort_by(|a, b| away(a).total_cmp(&away(b)));
        let mut tree = Self {
            points: vec![root],
            parents: vec![0],
            radii: Vec::new(),
        };
        let mut ways = vec![0.0];
        for leaf in leaves {
            let cost =
                |node: usize| length(subtract(leaf, tree.points[node])) + STRAIGHTNESS * ways[node];
            let best = (0..tree.points.len())
                .map(|node| (cost(node), node))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            let mut parent = best.map_or(0, |(_, node)| node);
            let start = tree.points[parent];
            let distance = length(subtract(leaf, start));
            let pieces = (distance / LONGEST_SEGMENT).ceil().max(1.0) as usize;
            for piece in 1..=pieces {
                let mut point = between(start, leaf, piece as f32 / pieces as f32);
                if piece < pieces {
                    point = add(
                        point,
                        scale(random.direction(), 0.1 * distance / pieces as f32),
                    );
                }
                ways.push(ways[parent] + length(subtract(point, tree.points[parent])));
                tree.points.push(point);
                tree.parents.push(parent);
                parent = tree.points.len() - 1;
            }
        }
        tree.radii = tree.murray(leaf_radius);
        tree
    }

    fn murray(&self, leaf_radius: f32) -> Vec<f32> {
        let mut flow = vec![0.0_f32; self.points.len()];
        // Children come after their parents.
        for node in (1..self.points.len()).rev() {
            if flow[node] == 0.0 {
                flow[node] = leaf_radius.powf(MURRAY_EXPONENT);
            }
            flow[self.parents[node]] += flow[node];
        }
        flow.into_iter()
            .map(|value| value.powf(1.0 / MURRAY_EXPONENT))
            .collect()
    }

    /// Segments: from, to, radius at both ends.
    pub(in super::super) fn segments(&self) -> impl Iterator<Item = (Point, Point, [f32; 2])> + '_ {
        (1..self.points.len()).map(|node| {
            let parent = self.parents[node];
            // A branch starts with its own radius at a fork, not with its parent's.
            let start = self.radii[parent].min(1.25 * self.radii[node]);
            (
                self.points[parent],
                self.points[node],
                [start, self.radii[node]],
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_is_reached_and_radii_obey_murray() {
        let mut random = Random::new(8);
        let leaves: Vec<Point> = (0..60)
            .map(|_| [0, 1, 2].map(|_| random.between(-80.0, 80.0)))
            .collect();
        let tree = Tree::grow([0.0; 3], leaves.clone(), 1.0, &mut random);
        for leaf in &leaves {
            assert!(
                tree.points
                    .iter()
                    .any(|point| length(subtract(*point, *leaf)) < 1e-4)
            );
        }
        for node in 0..tree.points.len() {
            let children: f32 = (1..tree.points.len())
                .filter(|&child| tree.parents[child] == node)
                .map(|child| tree.radii[child].powf(MURRAY_EXPONENT))
                .sum();
            let expected = if children == 0.0 { 1.0 } else { children };
            assert!((tree.radii[node].powf(MURRAY_EXPONENT) / expected - 1.0).abs() < 1e-3);
        }
        assert!(
            tree.parents
                .iter()
                .enumerate()
                .skip(1)
                .all(|(node, parent)| *parent < node)
        );
    }
}

//! Where a cost lies: by kind of operation, by layer, and in memory.

use serde::Serialize;

use super::Shape3;
use super::cost::{Amount, Cost, Kind};
use super::memory::ActivationMemory;

/// What the layers of one kind cost together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindShare {
    /// What they do.
    pub kind: Kind,
    /// What they cost.
    #[serde(flatten)]
    pub amount: Amount,
    /// Bytes that training keeps for their derivatives, see [`ActivationMemory`].
    pub training_bytes: u64,
}

/// What the layers of one part of a network cost together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerShare {
    /// Path of the part, as in `stages.0`.
    pub layer: String,
    /// What it costs.
    #[serde(flatten)]
    pub amount: Amount,
    /// Bytes that training keeps for its derivatives, see [`ActivationMemory`]; what an earlier part needs too is
    /// counted there.
    pub training_bytes: u64,
}

impl Cost {
    /// Memory of the activations of one volume of this shape, the one that the cost was stated for.
    pub fn memory(&self, volume: Shape3) -> ActivationMemory {
        let peak = self.flow.peak(volume.voxels() as u64);
        let layer = peak.layer.map(|index| self.layers()[index].name.clone());
        ActivationMemory {
            inference_bytes: peak.bytes,
            inference_peak: layer.unwrap_or_default(),
            training_bytes: self.kept(volume).iter().sum(),
        }
    }

    /// What training keeps, by layer, in bytes.
    fn kept(&self, volume: Shape3) -> Vec<u64> {
        self.flow.kept(volume.voxels() as u64, self.layers().len())
    }

    /// The sums over the layers of each kind, those that the network has.
    pub fn by_kind(&self, volume: Shape3) -> Vec<KindShare> {
        let kept = self.kept(volume);
        let of_kind = |kind: Kind| {
            let layers = self.layers().iter().zip(&kept);
            let mut layers = layers.filter(|(layer, _)| layer.kind == kind).peekable();
            layers.peek()?;
            let (amounts, kept): (Vec<Amount>, Vec<u64>) =
                layers.map(|(layer, kept)| (layer.amount, *kept)).unzip();
            Some(KindShare {
                kind,
                amount: amounts.into_iter().sum(),
                training_bytes: kept.iter().sum(),
            })
        };
        Kind::ALL.into_iter().filter_map(of_kind).collect()
    }

    /// The sums over layers whose paths begin alike. `depth` levels of the paths are kept apart, beyond those that all
    /// layers share; a number belongs to the level before it, so that `stages.0` is one level.
    pub fn by_layer(&self, volume: Shape3, depth: usize) -> Vec<LayerShare> {
        let paths: Vec<Vec<&str>> = self
            .layers()
            .iter()
            .map(|layer| levels(&layer.name))
            .collect();
        let shared = shared_levels(&paths);
        let mut shares: Vec<LayerShare> = Vec::new();
        for ((layer, path), kept) in self.layers().iter().zip(&paths).zip(self.kept(volume)) {
            let name = path[..path.len().min(shared.saturating_add(depth))].join(".");
            // A group may go on after another one: norms and sums between the branches of a layer.
            let known = shares.iter().position(|share| share.layer == name);
            let index = known.unwrap_or_else(|| {
                shares.push(LayerShare {
                    layer: name,
                    amount: Amount::default(),
                    training_bytes: 0,
                });
                shares.len() - 1
            });
            let share = &mut shares[index];
            share.amount = [share.amount, layer.amount].into_iter().sum();
            share.training_bytes += kept;
        }
        shares
    }
}

/// The levels of a layer's path, numbers with the names before them.
fn levels(path: &str) -> Vec<&str> {
    let mut levels = Vec::new();
    let mut start = 0;
    for (dot, _) in path.match_indices('.') {
        if !path[dot + 1..].starts_with(|next: char| next.is_ascii_digit()) {
            levels.push(&path[start..dot]);
            start = dot + 1;
        }
    }
    levels.push(&path[start..]);
    levels
}

/// How many levels at the beginning all paths share, each of which goes on after them.
fn shared_levels(paths: &[Vec<&str>]) -> usize {
    let Some(first) = paths.first() else {
        return 0;
    };
    (0..first.len())
        .take_while(|&level| {
            paths
                .iter()
                .all(|path| path.len() > level + 1 && path[level] == first[level])
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_belongs_to_the_name_before_it() {
        assert_eq!(
            levels("stages.0.blocks.12.mixer"),
            ["stages.0", "blocks.12", "mixer"]
        );
        assert_eq!(levels("norm"), ["norm"]);
        let paths = |paths: &[&'static str]| -> Vec<Vec<&str>> {
            paths.iter().map(|path| levels(path)).collect()
        };
        assert_eq!(shared_levels(&paths(&["net.a.x", "net.a.y", "net.b"])), 1);
        assert_eq!(shared_levels(&paths(&["net.a.x", "net.a.y"])), 2);
        assert_eq!(shared_levels(&paths(&["net", "net.a"])), 0);
        assert_eq!(shared_levels(&[]), 0);
    }
}

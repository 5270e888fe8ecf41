//! Each operation at the sizes of DCFormer on a full chest CT, and what share of the machine it uses.
//!
//! `cargo bench` prints, after criterion's own lines, a table with floating-point operations per second as a fraction of
//! what the machine can do with numbers in registers. Operations count as multiply-adds of the plain formula with merged
//! centre taps, two each: one that needs fewer products by algebra can exceed what its products alone would reach.
#![allow(
    missing_docs,
    reason = "criterion's macros make functions without documentation"
)]
#![allow(clippy::print_stdout, reason = "the table is what it is for")]

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use dcformer_kernels::simd::Level;
use dcformer_kernels::{
    BufferPool, MixerMlp, StemWeights, average_pool, biased_attention, dense_conv,
    dense_decomposed_conv, dense_decomposed_norm, depthwise_conv, depthwise_decomposed_conv,
    depthwise_decomposed_norm, max_pool, mixer_mlp, mlp, on_workers, packed_attention,
    pool_project, stem,
};

#[global_allocator]
static POOL: BufferPool = BufferPool::new();

const EPSILON: f64 = 1e-5;

/// Runs operations and remembers which.
struct Bench {
    criterion: Criterion,
    device: Device,
    /// Name, size and floating-point operations.
    done: Vec<(&'static str, String, f64)>,
}

impl Bench {
    fn random<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &self.device)
    }

    fn run(
        &mut self,
        name: &'static str,
        size: String,
        multiply_adds: usize,
        mut work: impl FnMut() + Send,
    ) {
        let flops = 2 * multiply_adds;
        let mut group = self.criterion.benchmark_group(name);
        group.sample_size(10);
        group.throughput(Throughput::Elements(flops as u64));
        group.bench_function(BenchmarkId::from_parameter(&size), |b| {
            // Where the program runs its networks.
            b.iter_custom(|times| {
                on_workers(|| {
                    let start = Instant::now();
                    (0..times).for_each(|_| work());
                    start.elapsed()
                })
            });
        });
        group.finish();
        self.done.push((name, size, flops as f64));
    }

    fn stems(&mut self) {
        for channels in [32, 64] {
            let grid = 64 * 128 * 128;
            let volume = self.random([1, 256, 512, 512, 1]);
            let weights = StemWeights {
                weight: self.random([3, 7, 1, channels]),
                bias: self.random([channels]),
                refinements: self.random([3, 3, 3, channels, channels]),
                refinement_biases: self.random([3, channels]),
                projection: self.random([channels, channels]),
            };
            let products =
                grid * (19 * channels + 21 * channels * channels + channels * channels / 8);
            let size = format!("256x512x512, {channels} channels");
            self.run("stem", size, products, || {
                drop(stem(volume.clone(), weights.clone(), 4, false));
            });
        }
    }

    fn dense(&mut self) {
        let (grid, channels) = ([32, 64, 64], 32);
        let voxels = grid.iter().product::<usize>();
        let [d, h, w] = grid;
        let x = self.random([1, d, h, w, channels]);
        let weight = self.random([3, 3, channels, channels]);
        let bias = self.random([channels]);
        let size = format!("{d}x{h}x{w}, {channels} channels");
        self.run(
            "dense_decomposed_conv",
            size.clone(),
            7 * voxels * channels * channels,
            || {
                drop(dense_decomposed_conv(
                    x.clone(),
                    weight.clone(),
                    bias.clone(),
                    1,
                ));
            },
        );
        let (gamma, beta) = (self.random([3, channels]), self.random([3, channels]));
        self.run(
            "dense_decomposed_norm",
            size.clone(),
            9 * voxels * channels * channels,
            || {
                let (gamma, beta) = (gamma.clone(), beta.clone());
                drop(dense_decomposed_norm(
                    x.clone(),
                    weight.clone(),
                    gamma,
                    beta,
                    1,
                    EPSILON,
                ));
            },
        );
        let tracked = |tensor: Tensor<4>| tensor.autodiff().require_grad();
        let (x, gamma, beta) = (
            x.autodiff().require_grad(),
            gamma.autodiff(),
            beta.autodiff(),
        );
        let weight = tracked(weight);
        // Forward, the branches once more, and both gradients.
        self.run(
            "dense_decomposed_norm, backward",
            size,
            36 * voxels * channels * channels,
            || {
                let out = dense_decomposed_norm(
                    x.clone(),
                    weight.clone(),
                    gamma.clone(),
                    beta.clone(),
                    1,
                    EPSILON,
                );
                drop(out.output.sum().backward());
            },
        );
    }

    fn stages(&mut self) {
        for (grid, channels, taps) in [
            ([32, 64, 64], 32, 13),
            ([32, 64, 64], 64, 13),
            ([16, 32, 32], 128, 11),
            ([8, 16, 16], 256, 9),
            ([4, 8, 8], 512, 7),
        ] {
            let [d, h, w] = grid;
            let voxels = d * h * w;
            let size = format!("{d}x{h}x{w}, {channels} channels");
            let x = self.random([1, d, h, w, channels]);
            let (filters, bias) = (self.random([3, taps, channels]), self.random([channels]));
            let mixing = voxels * channels * (3 * taps - 2);
            self.run("depthwise_decomposed_conv", size.clone(), mixing, || {
                drop(depthwise_decomposed_conv(
                    x.clone(),
                    filters.clone(),
                    bias.clone(),
                ));
            });
            let (gamma, beta) = (self.random([3, channels]), self.random([3, channels]));
            self.run(
                "depthwise_decomposed_norm",
                size.clone(),
                voxels * channels * 6 * taps,
                || {
                    let (gamma, beta) = (gamma.clone(), beta.clone());
                    drop(depthwise_decomposed_norm(
                        x.clone(),
                        filters.clone(),
                        gamma,
                        beta,
                        EPSILON,
                    ));
                },
            );
            let (w1, b1) = (
                self.random([channels, 4 * channels]),
                self.random([4 * channels]),
            );
            let (w2, b2) = (
                self.random([4 * channels, channels]),
                self.random([channels]),
            );
            let rows = x.clone().reshape([voxels, channels]);
            let products = 8 * voxels * channels * channels;
            self.run("mlp", size.clone(), products, || {
                drop(mlp(
                    rows.clone(),
                    w1.clone(),
                    b1.clone(),
                    w2.clone(),
                    b2.clone(),
                ));
            });
            let weights = MixerMlp {
                filters,
                bias,
                w1,
                b1,
                w2,
                b2,
            };
            self.run("mixer_mlp", size.clone(), products + mixing, || {
                drop(mixer_mlp(x.clone(), weights.clone()));
            });
            let projection = self.random([channels, 2 * channels]);
            self.run(
                "pool_project",
                size.clone(),
                voxels / 4 * channels * channels,
                || {
                    drop(pool_project(x.clone(), projection.clone()));
                },
            );
            self.run("max_pool", size, 0, || drop(max_pool(x.clone())));
        }
    }

    /// The token mixers of ConvNeXt on a full and on half a chest CT and of PoolFormer, and the small filter of the others.
    fn windows(&mut self) {
        for (grid, channels, taps) in [
            ([32, 64, 64], 40, 7),
            ([16, 32, 32], 80, 7),
            ([8, 16, 16], 160, 7),
            ([4, 8, 8], 320, 7),
            ([16, 32, 32], 40, 7),
            ([8, 16, 16], 80, 7),
            ([4, 8, 8], 160, 7),
            ([2, 4, 4], 320, 7),
            ([32, 64, 64], 8, 3),
            ([16, 32, 32], 512, 3),
        ] {
            let [d, h, w] = grid;
            let size = format!("{d}x{h}x{w}, {channels} channels, {taps}x{taps}x{taps}");
            let products = d * h * w * channels * taps * taps * taps;
            let x = self.random([1, d, h, w, channels]);
            let weight = self.random([taps, taps, taps, channels]);
            let bias = self.random([channels]);
            let before = [taps / 2; 3];
            self.run("depthwise_conv", size.clone(), products, || {
                let (weight, bias) = (weight.clone(), bias.clone());
                drop(depthwise_conv(x.clone(), weight, bias, before));
            });
            let x = x.autodiff().require_grad();
            let weight = weight.autodiff().require_grad();
            let bias = bias.autodiff().require_grad();
            // Forward, and the gradients of input and filters.
            self.run("depthwise_conv, backward", size, 3 * products, || {
                let y = depthwise_conv(x.clone(), weight.clone(), bias.clone(), before);
                drop(y.sum().backward());
            });
        }
        for (grid, channels) in [([32, 64, 64], 40), ([16, 32, 32], 80)] {
            let [d, h, w] = grid;
            let size = format!("{d}x{h}x{w}, {channels} channels");
            let x = self.random([1, d, h, w, channels]);
            self.run("average_pool", size, 0, || drop(average_pool(x.clone())));
        }
    }

    /// The convolutions of TransUNet on half a chest CT, and their gradients.
    fn convolutions(&mut self) {
        for (size, channels, taps, stride) in [
            ([128, 256, 256], [1, 48], 7, 4),
            ([32, 64, 64], [48, 96], 1, 1),
            ([32, 64, 64], [96, 96], 3, 2),
            ([8, 16, 16], [384, 384], 3, 2),
        ] {
            let ([d, h, w], [inputs, outputs]) = (size, channels);
            let positions = size.map(|size: usize| size.div_ceil(stride));
            let voxels = positions.iter().product::<usize>();
            let products = voxels * taps * taps * taps * inputs * outputs;
            let name = format!("{d}x{h}x{w}, {inputs} to {outputs} channels, {taps} taps");
            let x = self.random([1, d, h, w, inputs]);
            let weight = self.random([taps, taps, taps, inputs, outputs]);
            let bias = self.random([outputs]);
            let before = [taps / 2; 3];
            self.run("dense_conv", name.clone(), products, || {
                let (weight, bias) = (weight.clone(), bias.clone());
                drop(dense_conv(x.clone(), weight, bias, stride, before, true));
            });
            let x = x.autodiff().require_grad();
            let (weight, bias) = (weight.autodiff().require_grad(), bias.autodiff());
            self.run("dense_conv, backward", name, 3 * products, || {
                let (weight, bias) = (weight.clone(), bias.clone());
                let y = dense_conv(x.clone(), weight, bias, stride, before, false);
                drop(y.sum().backward());
            });
        }
    }

    /// Attention of a vision transformer's tokens, and of those of CT-ViT's slabs.
    fn attention(&mut self) {
        let (heads, head_dim) = (8, 64);
        for (sequences, tokens) in [(1, 257), (1, 2049), (8, 64)] {
            let rows = sequences * tokens;
            let products = 2 * sequences * tokens * tokens * heads * head_dim;
            let [q, k, v] = [(); 3].map(|()| self.random([rows, heads * head_dim]));
            let size = format!("{sequences} x {tokens} tokens, {heads} x {head_dim} channels");
            let lengths = vec![tokens; sequences];
            self.run("packed_attention", size.clone(), products, || {
                let (q, k, v) = (q.clone(), k.clone(), v.clone());
                drop(packed_attention(q, k, v, &lengths, heads));
            });
            if tokens > 1000 {
                continue;
            }
            let bias = self.random([heads, tokens, tokens]);
            self.run("biased_attention", size, products, || {
                let (q, k, v) = (q.clone(), k.clone(), v.clone());
                drop(biased_attention(q, k, v, bias.clone()));
            });
        }
    }

    /// Criterion's medians as fractions of the peak.
    fn table(&self) {
        let level = Level::current();
        let peak = level.peak_flops();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
            PathBuf::from,
        );
        println!(
            "\n{level}, {} threads: {:.0} GFLOP/s at most\n",
            rayon::current_num_threads(),
            peak / 1e9
        );
        println!("| operation | size | milliseconds | GFLOP/s | of the machine |");
        println!("|---|---|---|---|---|");
        for (name, size, flops) in &self.done {
            let folder = |text: &str| text.replace(['/', '"'], "_");
            let file = target
                .join("criterion")
                .join(folder(name))
                .join(folder(size))
                .join("new/estimates.json");
            // Operations that a filter left out have no new estimate.
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            let estimates: serde_json::Value =
                serde_json::from_str(&text).expect("criterion writes JSON");
            let seconds = estimates["median"]["point_estimate"]
                .as_f64()
                .expect("a median")
                / 1e9;
            let rate = flops / seconds;
            let rates = match *flops {
                0.0 => " | ".to_owned(),
                _ => format!("{:.0} | {:.0} %", rate / 1e9, 100.0 * rate / peak),
            };
            println!("| {name} | {size} | {:.2} | {rates} |", seconds * 1e3);
        }
    }
}

fn main() {
    dcformer_kernels::keep_freed_memory();
    let mut bench = Bench {
        criterion: Criterion::default().configure_from_args(),
        device: Device::flex(),
        done: Vec::new(),
    };
    bench.stems();
    bench.dense();
    bench.stages();
    bench.windows();
    bench.convolutions();
    bench.attention();
    bench.criterion.final_summary();
    bench.table();
}

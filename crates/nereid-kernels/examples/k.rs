use nereid_kernels::*;
use std::time::Instant;
fn time(name: &str, flops: f64, mut f: impl FnMut()) {
    f();
    let mut best = f64::MAX;
    for _ in 0..15 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    println!(
        "{name}: {:.3} ms {:.1} GFLOP/s",
        best * 1e3,
        flops / best / 1e9
    );
}
fn main() {
    for (b, h, c, f, pad) in [
        (64, 28, 1, 32, 0),
        (64, 13, 32, 64, 0),
        (32, 32, 64, 64, 1),
        (32, 8, 256, 256, 1),
        (32, 4, 512, 512, 1),
    ] {
        let w = Windows {
            batch: b,
            input: [h, h],
            channels: c,
            size: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [(pad, pad); 2],
        };
        let conv = Conv::new(w, f);
        let [oh, ow] = w.output();
        let x = vec![0.5f32; b * h * h * c];
        let k = vec![0.1f32; 9 * c * f];
        let y = vec![0.2f32; b * oh * ow * f];
        let fl = 2.0 * (b * oh * ow * 9 * c * f) as f64;
        println!("{b} {h} {c} {f}");
        let p = conv.pad(&x);
        time("  forward", fl, || {
            std::hint::black_box(conv.forward(&p, &k, None, true));
        });
        time("  dw", fl, || {
            std::hint::black_box(conv.kernel_gradient(&p, &y));
        });
        time("  dx", fl, || {
            std::hint::black_box(conv.input_gradient(&y, &k));
        });
        let pool = Windows {
            input: [oh, ow],
            channels: f,
            size: [2, 2],
            stride: [2, 2],
            pads: [(0, 0); 2],
            ..w
        };
        let m = maximum(&pool, &y);
        time("  max", 0.0, || {
            std::hint::black_box(maximum(&pool, &y));
        });
        time("  dmax", 0.0, || {
            std::hint::black_box(maximum_gradient(&pool, &y, &m, &m));
        });
        time("  alloc+zero", 0.0, || {
            std::hint::black_box(vec![1.0f32; y.len()]);
        });
    }
    for (r, i, u) in [
        (64, 1600, 128),
        (32, 64, 64),
        (256, 64, 64),
        (32, 20, 64),
        (256, 20, 64),
        (2048, 64, 256),
    ] {
        let d = Dense {
            rows: r,
            inputs: i,
            units: u,
        };
        let x = vec![0.5f32; r * i];
        let k = vec![0.1f32; i * u];
        let y = vec![0.2f32; r * u];
        let fl = 2.0 * (r * i * u) as f64;
        println!("dense {r} {i} {u}");
        time("  forward", fl, || {
            std::hint::black_box(d.forward(&x, &k, None, true));
        });
        time("  dw", fl, || {
            std::hint::black_box(d.kernel_gradient(&x, &y));
        });
        time("  dx", fl, || {
            std::hint::black_box(d.input_gradient(&y, &k));
        });
    }
}

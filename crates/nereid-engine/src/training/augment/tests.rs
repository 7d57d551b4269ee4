use nereid_core::spec::TrainSpec;
use serde_json::{Value, json};

use super::*;

/// A spec for images of 4 by 4 with 3 classes and this augmentation.
pub(super) fn spec(augmentation: &Value) -> TrainSpec {
    let layers = json!([{"type": "Flatten"}, {"type": "Dense", "units": 3}]);
    serde_json::from_value(json!({
        "model": "m", "dataset": "d", "network": {"layers": layers},
        "loss": {"type": "sparse_categorical_crossentropy"},
        "fit": {"seed": 3, "augmentation": augmentation}
    }))
    .unwrap()
}

fn numbered(n: u8) -> Vec<f32> {
    (1..=n).map(f32::from).collect()
}

/// Augments images at the first places of an epoch, each numbered from 1 on.
fn augmented(augmentation: &Value, shape: [usize; 3], n: usize, epoch: u32) -> Vec<Vec<f32>> {
    let augmenter = Augmenter::new(&spec(&json!([augmentation])).fit, &shape).unwrap();
    let image = numbered(u8::try_from(shape.iter().product::<usize>()).unwrap());
    let mut values = image.repeat(n);
    augmenter.before_scaling(Position { epoch, first: 0 }, &mut values);
    values.chunks(image.len()).map(<[f32]>::to_vec).collect()
}

fn distinct(images: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut images = images;
    images.sort_by(|a, b| a.partial_cmp(b).unwrap());
    images.dedup();
    images
}

#[test]
fn flips_are_exact_and_keep_channels() {
    let flip = json!({"type": "RandomFlip", "mode": "horizontal"});
    let seen = distinct(augmented(&flip, [1, 3, 2], 40, 0));
    assert_eq!(
        seen,
        [vec![1., 2., 3., 4., 5., 6.], vec![5., 6., 3., 4., 1., 2.]]
    );
    let flip = json!({"type": "RandomFlip", "mode": "vertical"});
    let seen = distinct(augmented(&flip, [3, 1, 2], 40, 0));
    assert_eq!(
        seen,
        [vec![1., 2., 3., 4., 5., 6.], vec![5., 6., 3., 4., 1., 2.]]
    );
    let seen = distinct(augmented(&json!({"type": "RandomFlip"}), [2, 2, 1], 40, 0));
    assert_eq!(seen.len(), 4);
}

#[test]
fn a_quarter_turn_is_exact_and_counterclockwise() {
    let turn = json!({"type": "RandomRotation", "factor": [0.25, 0.25]});
    let images = augmented(&turn, [3, 3, 1], 1, 0);
    assert_eq!(images[0], [3., 6., 9., 2., 5., 8., 1., 4., 7.]);
    let turn = json!({"type": "RandomRotation", "factor": [-0.5, -0.5]});
    let images = augmented(&turn, [2, 2, 2], 1, 0);
    assert_eq!(images[0], [7., 8., 5., 6., 3., 4., 1., 2.]);
}

#[test]
fn translations_fill_as_asked() {
    for (mode, expected) in [
        ("reflect", [2., 1., 1., 2.]),
        ("wrap", [3., 4., 1., 2.]),
        ("constant", [9., 9., 1., 2.]),
        ("nearest", [1., 1., 1., 2.]),
    ] {
        let shift = json!({"type": "RandomTranslation", "height_factor": 0,
            "width_factor": [0.5, 0.5], "fill_mode": mode, "fill_value": 9});
        assert_eq!(augmented(&shift, [1, 4, 1], 1, 0)[0], expected, "{mode}");
    }
    // Half a pixel down: the mean of both, and half of what lies beyond.
    let shift = json!({"type": "RandomTranslation", "height_factor": [0.25, 0.25],
        "width_factor": 0, "fill_mode": "constant", "fill_value": 5});
    assert_eq!(augmented(&shift, [2, 1, 1], 1, 0)[0], [3., 1.5]);
    let nearest = json!({"type": "RandomTranslation", "height_factor": [-0.4, -0.4],
        "width_factor": 0, "interpolation": "nearest"});
    assert_eq!(augmented(&nearest, [3, 1, 1], 1, 0)[0], [2., 3., 3.]);
}

#[test]
fn zooms_keep_the_centre() {
    let out = json!({"type": "RandomZoom", "height_factor": [1, 1], "fill_mode": "constant"});
    let seen = &augmented(&out, [3, 3, 1], 1, 0)[0];
    assert_eq!(*seen, [0., 0., 0., 0., 5., 0., 0., 0., 0.]);
    let wide = json!({"type": "RandomZoom", "height_factor": 0, "width_factor": [-0.5, -0.5]});
    assert_eq!(augmented(&wide, [1, 3, 1], 1, 0)[0], [1.5, 2., 2.5]);
}

#[test]
fn crops_take_every_place_of_the_padded_image() {
    let crop = json!({"type": "RandomCrop", "padding": [0, 1]});
    let seen = distinct(augmented(&crop, [1, 3, 1], 60, 0));
    assert_eq!(seen, [vec![0., 1., 2.], vec![1., 2., 3.], vec![2., 3., 0.]]);
    let both = distinct(augmented(
        &json!({"type": "RandomCrop", "padding": 1}),
        [2, 2, 1],
        300,
        0,
    ));
    assert_eq!(both.len(), 9);
}

#[test]
fn brightness_and_contrast_are_those_of_keras() {
    let bright = json!({"type": "RandomBrightness", "factor": [0.5, 0.5], "value_range": [0, 4]});
    assert_eq!(augmented(&bright, [1, 3, 1], 1, 0)[0], [3., 4., 4.]);
    // Channels have means 3 and 4.
    let stretch = json!({"type": "RandomContrast", "factor": [0.5, 0.5], "value_range": [1, 255]});
    assert_eq!(
        augmented(&stretch, [1, 3, 2], 1, 0)[0],
        [1., 1., 3., 4., 6., 7.]
    );
}

#[test]
fn erasing_fills_a_rectangle_as_often_as_asked() {
    let erase = json!({"type": "RandomErasing", "scale": [0.25, 0.25], "fill_value": 0});
    for image in augmented(&erase, [4, 4, 1], 200, 0) {
        let erased = image.iter().filter(|&&v| v == 0.0).count();
        assert!(erased == 0 || erased == 4, "{image:?}");
    }
    let often = json!({"type": "RandomErasing", "factor": [0.5, 0.5], "scale": [0.25, 0.25]});
    let images = augmented(&often, [4, 4, 1], 400, 0);
    let changed = images.iter().filter(|i| **i != numbered(16)).count();
    assert!((160..240).contains(&changed), "{changed} of 400");
    assert!(images.iter().flatten().all(|v| (0.0..=255.0).contains(v)));
}

#[test]
fn noise_has_the_deviation_asked_for_and_mean_0() {
    let fit = spec(&json!([{"type": "GaussianNoise", "stddev": 0.5}])).fit;
    let augmenter = Augmenter::new(&fit, &[10]).unwrap();
    let mut values = vec![1.0; 20_000];
    let at = Position { epoch: 0, first: 0 };
    augmenter.before_scaling(at, &mut values);
    assert_eq!(values, vec![1.0; 20_000]);
    augmenter.after_scaling(at, &mut values);
    let errors: Vec<f64> = values.iter().map(|&v| f64::from(v) - 1.0).collect();
    let mean = errors.iter().sum::<f64>() / 2e4;
    let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / 2e4).sqrt();
    assert!(
        mean.abs() < 0.02 && (deviation - 0.5).abs() < 0.02,
        "{mean} {deviation}"
    );
}

#[test]
fn what_happens_follows_from_the_position_alone() {
    let all = json!([
        {"type": "RandomFlip"}, {"type": "RandomRotation", "factor": 0.1},
        {"type": "RandomErasing"}, {"type": "RandomBrightness", "factor": 0.2}
    ]);
    let augmenter = Augmenter::new(&spec(&all).fit, &[4, 4, 1]).unwrap();
    let run = |epoch, first, n| {
        let mut values = numbered(16).repeat(n);
        augmenter.before_scaling(Position { epoch, first }, &mut values);
        values
    };
    let whole = run(2, 0, 12);
    // In other batches, and from other threads.
    let parts: Vec<f32> = std::thread::scope(|scope| {
        let parts =
            [(0, 5), (5, 4), (9, 3)].map(|(first, n)| scope.spawn(move || run(2, first, n)));
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap())
            .collect()
    });
    assert_eq!(whole, parts);
    assert_ne!(whole, run(3, 0, 12));
    assert_ne!(whole[..16], whole[16..32]);
}

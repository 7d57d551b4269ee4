//! Brightness and contrast.

use super::single;

/// Adds a share of the value range and cuts to it.
pub(super) fn brighten(sample: &mut [f32], share: f64, [low, high]: [f64; 2]) {
    let added = single(share * (high - low));
    let (low, high) = (single(low), single(high));
    for value in sample {
        *value = (*value + added).clamp(low, high);
    }
}

/// Scales the distance of each channel from its mean and cuts to the value range.
pub(super) fn stretch(sample: &mut [f32], channels: usize, factor: f64, [low, high]: [f64; 2]) {
    let (low, high, factor) = (single(low), single(high), single(factor));
    let pixels = super::real(sample.len() / channels.max(1)).max(1.0);
    for channel in 0..channels {
        let values = sample.iter().skip(channel).step_by(channels);
        let mean = single(values.map(|&v| f64::from(v)).sum::<f64>() / pixels);
        for value in sample.iter_mut().skip(channel).step_by(channels) {
            *value = ((*value - mean) * factor + mean).clamp(low, high);
        }
    }
}

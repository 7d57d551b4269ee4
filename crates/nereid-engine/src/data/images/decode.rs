//! From the bytes of an image to its pixels, and to those of another size.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use nereid_core::limits;

/// Pixels of an image, row-major with the channels last.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<u8>,
}

/// Decodes a PNG or JPEG; without `channels`, grey images have one and all others three.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn decode(bytes: &[u8], channels: Option<usize>) -> Result<Picture, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        return Err("it is neither PNG nor JPEG".to_owned());
    }
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(limits::MAX_IMAGE_SIDE);
    limits.max_image_height = Some(limits::MAX_IMAGE_SIDE);
    limits.max_alloc = Some(limits::MAX_IMAGE_DECODED_BYTES);
    reader.limits(limits);
    let image = reader
        .decode()
        .map_err(|e| format!("it cannot be decoded: {e}"))?;
    let grey = matches!(
        image,
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageLuma16(_)
    );
    let channels = channels.unwrap_or(if grey { 1 } else { 3 });
    let (width, height) = (image.width() as usize, image.height() as usize);
    let values = match channels {
        1 => image.into_luma8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        _ => image.into_rgba8().into_raw(),
    };
    Ok(Picture {
        height,
        width,
        channels,
        values,
    })
}

/// Position between two pixels: the left one, the right one and how near the right one is.
type Between = (usize, usize, f32);

/// Where the pixels of a line of `to` lie in one of `from`; centres are at halves, as in
/// `tf.image.resize`, and nothing is smoothed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sides are small and positions not negative"
)]
fn positions(from: usize, to: usize) -> Vec<Between> {
    let scale = from as f32 / to as f32;
    let position = |i: usize| {
        let at = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
        let left = (at.floor() as usize).min(from - 1);
        (left, (left + 1).min(from - 1), at - left as f32)
    };
    (0..to).map(position).collect()
}

/// Appends the image at another size, by bilinear interpolation, rounded to whole numbers.
pub(super) fn resize(picture: &Picture, height: usize, width: usize, out: &mut Vec<f32>) {
    let columns = positions(picture.width, width);
    let channels = picture.channels;
    let line = picture.width * channels;
    for (top, bottom, down) in positions(picture.height, height) {
        let (upper, lower) = (
            &picture.values[top * line..],
            &picture.values[bottom * line..],
        );
        for &(left, right, across) in &columns {
            for c in 0..channels {
                let at = |line: &[u8]| {
                    let (a, b) = (line[left * channels + c], line[right * channels + c]);
                    f32::from(a) + (f32::from(b) - f32::from(a)) * across
                };
                let (a, b) = (at(upper), at(lower));
                out.push((a + (b - a) * down).round());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizes_like_tensorflow() {
        let picture = |height, width, values: &[u8]| Picture {
            height,
            width,
            channels: 1,
            values: values.to_vec(),
        };
        let resized = |p: &Picture, height, width| {
            let mut out = Vec::new();
            resize(p, height, width, &mut out);
            out
        };
        // tf.image.resize(x, size) of TensorFlow 2.21, rounded.
        let small = picture(2, 3, &[0, 100, 200, 50, 150, 250]);
        let expected = [25, 175, 38, 188, 63, 213, 75, 225];
        assert_eq!(resized(&small, 4, 2), expected.map(|n: u8| f32::from(n)));
        let expected = [
            0, 40, 100, 160, 200, 25, 65, 125, 185, 225, 50, 90, 150, 210, 250,
        ];
        assert_eq!(resized(&small, 3, 5), expected.map(|n: u8| f32::from(n)));
        let values: Vec<u8> = (0..35).map(|i| i * 7).collect();
        let expected = [41, 58, 74, 164, 180, 197];
        let large = picture(5, 7, &values);
        assert_eq!(resized(&large, 2, 3), expected.map(|n: u8| f32::from(n)));
    }
}

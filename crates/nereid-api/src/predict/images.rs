//! Images to predict, decoded and resized as those of a dataset are.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use nereid_core::{
    Violations,
    engine::ImageDecoder,
    limits::{MAX_IMAGE_FILE_BYTES, MAX_PREDICT_ROWS, MAX_PREDICT_VALUES},
    models::Signature,
    spec::shapes,
    tensors::Batch,
};

/// Reads images out of a JSON body: base64, also as a data URL.
///
/// # Errors
/// What is not base64.
pub(crate) fn from_base64(texts: &[String]) -> Result<Vec<Bytes>, Violations> {
    let mut violations = Violations::default();
    let mut images = Vec::with_capacity(texts.len().min(MAX_PREDICT_ROWS));
    for (i, text) in texts.iter().enumerate() {
        let data = match text.strip_prefix("data:") {
            Some(url) => url.split_once(";base64,").map_or("", |(_, data)| data),
            None => text,
        };
        match BASE64_STANDARD.decode(data) {
            Ok(bytes) => images.push(bytes.into()),
            Err(e) => violations.push(format!("/images/{i}"), "invalid_base64", e.to_string()),
        }
    }
    violations.into_result(images)
}

/// Makes a batch of images. Computes: to be called off the async threads.
///
/// # Errors
/// Every image that cannot be decoded, or a model that takes something else.
pub(crate) fn batch(
    images: &[Bytes],
    signature: &Signature,
    decoder: &dyn ImageDecoder,
) -> Result<Batch, Violations> {
    let mut violations = Violations::default();
    let shape = signature.sample_shape();
    let is_image = signature.preprocessing.columns.is_empty() && matches!(shape.len(), 2 | 3);
    violations.check(is_image, "/images", "wrong_type", || {
        let shape = shapes::show(&shape);
        format!("this model takes samples of shape {shape}, which is no image's; send rows")
    });
    let size = usize::try_from(shapes::size(&shape))
        .unwrap_or(usize::MAX)
        .max(1);
    let most = MAX_PREDICT_ROWS.min(MAX_PREDICT_VALUES / size).max(1);
    violations.check_range("/images", images.len(), 1, most);
    if !violations.is_empty() {
        return Err(violations);
    }
    let mut values = Vec::with_capacity(size * images.len());
    for (i, image) in images.iter().enumerate() {
        let at = format!("/images/{i}");
        let bytes = image.len() as u64;
        if bytes > MAX_IMAGE_FILE_BYTES {
            let detail = format!("{bytes} bytes are more than the {MAX_IMAGE_FILE_BYTES} allowed");
            violations.push(at, "too_large", detail);
        } else if let Err(detail) = decoder.decode(image, &shape, &mut values) {
            violations.push(at, "bad_image", detail);
        }
    }
    let rows = images.len();
    violations.into_result(Batch { rows, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::signature;

    /// Takes images that are their own pixels.
    struct Plain;

    impl ImageDecoder for Plain {
        fn decode(&self, image: &[u8], shape: &[usize], out: &mut Vec<f32>) -> Result<(), String> {
            if image.len() != shape.iter().product::<usize>() {
                return Err("it is neither PNG nor JPEG".to_owned());
            }
            out.extend(image.iter().map(|&b| f32::from(b)));
            Ok(())
        }
    }

    #[test]
    fn images_become_rows_and_each_bad_one_is_named() {
        let texts = [
            "AQIDBA==".to_owned(),
            "data:image/png;base64,BQYHCA==".to_owned(),
        ];
        let images = from_base64(&texts).unwrap();
        let found = batch(&images, &signature(&[2, 2, 1], None), &Plain).unwrap();
        assert_eq!((found.rows, found.values.len()), (2, 8));
        let bad = [Bytes::from_static(&[1]), images[0].clone(), Bytes::new()];
        let refused = batch(&bad, &signature(&[2, 2, 1], None), &Plain).unwrap_err();
        let pointers: Vec<_> = refused.into_vec().into_iter().map(|v| v.pointer).collect();
        assert_eq!(pointers, ["/images/0", "/images/2"]);
        assert!(from_base64(&["*".to_owned()]).is_err());
    }

    #[test]
    fn tables_and_too_many_images_are_refused_before_anything_is_decoded() {
        assert!(batch(&[Bytes::new()], &signature(&[4], None), &Plain).is_err());
        assert!(batch(&[], &signature(&[2, 2], None), &Plain).is_err());
        let large = signature(&[4096, 4096, 3], None);
        assert!(batch(&[Bytes::new(), Bytes::new()], &large, &Plain).is_err());
    }
}

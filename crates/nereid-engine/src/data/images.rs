//! Images in tars or folders, with their classes: PNG and JPEG, resized to one shape where one is
//! declared.

mod decode;
mod files;

use nereid_core::{
    datasets::DatasetSource,
    engine::{EngineError, ImageDecoder},
    limits,
    spec::shapes,
};

pub(super) use self::files::ImageFiles;
use self::{
    decode::{Picture, decode, resize},
    files::ImageFile,
};
use super::{
    archive::Member,
    bytes::Place,
    elements::check_sample,
    rows::{Label, Layout},
    tables::{clip, count_row},
};

/// Largest `.cls` file in bytes.
const MAX_CLASS_BYTES: u64 = 4 << 10;

/// From where the class of an image comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClassFrom {
    /// `name.cls` beside `name.jpg`, as WebDataset has it.
    File,
    /// The folder that the image lies in; below a prefix the outermost, as torchvision's
    /// `ImageFolder` and Keras' `image_dataset_from_directory` have it.
    Folder,
    Nothing,
}

/// An image with what lies beside it.
struct Sample {
    name: String,
    /// Files of another group are of another sample, whatever they are called.
    group: u64,
    /// Whether the image is an object of its own below a prefix.
    alone: bool,
    /// Where it was found; when it is complete, reading may be further on.
    place: Place,
    image: Vec<u8>,
    class: Option<String>,
}

/// Reads images and classes in the archive's order.
pub(super) struct ImageRows {
    files: ImageFiles,
    /// What was read of the next sample when the one before ended.
    begun: Option<Sample>,
    /// The first sample, which was looked at before it is read.
    first: Option<Sample>,
    shape: Vec<usize>,
    declared: bool,
    class_from: ClassFrom,
    next: u64,
}

impl ImageRows {
    /// Looks at the first image.
    pub(super) fn new(
        files: ImageFiles,
        source: &DatasetSource,
    ) -> Result<(Self, Layout), EngineError> {
        let mut rows = Self {
            files,
            begun: None,
            first: None,
            shape: Vec::new(),
            declared: source.shape.is_some(),
            class_from: ClassFrom::Nothing,
            next: 0,
        };
        let Some(first) = rows.sample()? else {
            return Err(rows.place().fault("empty", "it holds no PNG or JPEG image"));
        };
        rows.class_from = match (&first.class, first.folder()) {
            (Some(_), _) => ClassFrom::File,
            (None, Some(_)) => ClassFrom::Folder,
            (None, None) => ClassFrom::Nothing,
        };
        rows.shape = if let Some(shape) = &source.shape {
            shape.clone()
        } else {
            let picture = first.decode(0, None)?;
            vec![picture.height, picture.width, picture.channels]
        };
        check_sample(rows.place(), &rows.shape)?;
        if !matches!(rows.shape[..], [_, _] | [_, _, 1 | 3 | 4]) {
            let shape = shapes::show(&rows.shape);
            let detail = format!(
                "shape {shape} is no image's: height, width and 1 (grey), 3 (RGB) or 4 (RGBA) channels"
            );
            return Err(rows.place().fault("shape_mismatch", detail));
        }
        rows.first = Some(first);
        let layout = Layout {
            shape: rows.shape.clone(),
            dtype: "UINT8",
            columns: None,
        };
        Ok((rows, layout))
    }

    pub(super) fn place(&self) -> &Place {
        self.files.place()
    }

    /// Returns the name of the target, if images have a class.
    pub(super) fn target(&self) -> Option<&'static str> {
        (self.class_from != ClassFrom::Nothing).then_some("class")
    }

    /// Reads the next image; `false` after the last.
    pub(super) fn next(
        &mut self,
        out: &mut Vec<f32>,
        label: &mut Label,
    ) -> Result<bool, EngineError> {
        out.clear();
        let sample = match self.first.take() {
            Some(sample) => sample,
            None => match self.sample()? {
                Some(sample) => sample,
                None => return Ok(false),
            },
        };
        let row = self.next;
        count_row(self.files.place(), &mut self.next)?;
        let channels = self.shape.get(2).copied().unwrap_or(1);
        let picture = sample.decode(row, Some(channels))?;
        let (height, width) = (self.shape[0], self.shape[1]);
        let same = (picture.height, picture.width) == (height, width);
        if same || self.declared {
            fit(&picture, height, width, out);
        } else {
            let (h, w) = (picture.height, picture.width);
            let detail = format!(
                "{:?} is {h} by {w} pixels, the first image {height} by {width}; declare a shape to have all resized",
                clip(&sample.name)
            );
            return Err(sample.fault("shape_mismatch", row, detail));
        }
        let class = match self.class_from {
            ClassFrom::File => sample.class.as_deref(),
            ClassFrom::Folder => sample.folder(),
            ClassFrom::Nothing => return Ok(true),
        };
        let Some(class) = class else {
            let detail = format!("{:?} has no class, the first image has", clip(&sample.name));
            return Err(sample.fault("missing_value", row, detail));
        };
        label.set_text(class);
        Ok(true)
    }

    fn fault(&self, code: &'static str, row: u64, detail: String) -> EngineError {
        self.files.place().fault_at(code, Some(row), None, detail)
    }

    /// Reads on until an image and what lies beside it are complete.
    fn sample(&mut self) -> Result<Option<Sample>, EngineError> {
        let mut current = self.begun.take();
        while let Some(file) = self.files.next()? {
            let ImageFile {
                member,
                group,
                alone,
            } = file;
            let Some((stem, kind)) = sort(&member.name) else {
                continue;
            };
            if kind == Kind::Unsupported {
                let detail = format!("{:?} is neither PNG nor JPEG", clip(&member.name));
                return Err(self.fault("bad_image", self.next, detail));
            }
            let content = self.content(&member, kind)?;
            let same = current.as_ref().is_some_and(|c| {
                // A folder may hold x.png and x.jpg, which are two images.
                let another = alone && kind == Kind::Image && !c.image.is_empty();
                c.group == group && c.name == stem && !another
            });
            let before = if same { None } else { current.take() };
            let sample = current.get_or_insert_with(|| Sample {
                name: stem.to_owned(),
                group,
                alone,
                place: self.files.place().clone(),
                image: Vec::new(),
                class: None,
            });
            if kind == Kind::Class {
                let class = String::from_utf8_lossy(&content).trim().to_owned();
                sample.class = Some(class).filter(|c| !c.is_empty());
            } else if sample.image.is_empty() {
                sample.image = content;
            } else {
                let detail = format!("{:?} is there twice", clip(&member.name));
                return Err(self.fault("bad_image", self.next, detail));
            }
            if let Some(before) = before {
                self.begun = current;
                return self.whole(before).map(Some);
            }
        }
        current.map(|last| self.whole(last)).transpose()
    }

    fn whole(&self, sample: Sample) -> Result<Sample, EngineError> {
        if sample.image.is_empty() {
            let detail = format!("{:?} has a class but no image", clip(&sample.name));
            return Err(sample.fault("bad_image", self.next, detail));
        }
        Ok(sample)
    }

    fn content(&mut self, member: &Member, kind: Kind) -> Result<Vec<u8>, EngineError> {
        let max = match kind {
            Kind::Class => MAX_CLASS_BYTES,
            _ => limits::MAX_IMAGE_FILE_BYTES,
        };
        if member.size > max {
            let (name, size) = (clip(&member.name), member.size);
            let detail = format!("{name:?} has {size} bytes, more than the {max} allowed");
            return Err(self.fault("too_large", self.next, detail));
        }
        self.files.read(member)
    }
}

/// Appends an image's values, of another size if it has another.
fn fit(picture: &Picture, height: usize, width: usize, out: &mut Vec<f32>) {
    if (picture.height, picture.width) == (height, width) {
        out.extend(picture.values.iter().map(|&b| f32::from(b)));
    } else {
        resize(picture, height, width, out);
    }
}

/// The [`ImageDecoder`] of this engine.
pub(crate) struct DatasetImages;

impl ImageDecoder for DatasetImages {
    fn decode(&self, image: &[u8], shape: &[usize], out: &mut Vec<f32>) -> Result<(), String> {
        let (&[height, width] | &[height, width, 1 | 3 | 4]) = shape else {
            let shape = shapes::show(shape);
            return Err(format!(
                "the model takes samples of shape {shape}, which is no image's"
            ));
        };
        let channels = shape.get(2).copied().unwrap_or(1);
        let picture = decode(image, Some(channels))?;
        fit(&picture, height, width, out);
        Ok(())
    }
}

/// What a member of the archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Class,
    Unsupported,
}

/// Returns a member's path without its extension, and what it is; `None` for what is passed over.
fn sort(name: &str) -> Option<(&str, Kind)> {
    let file = name.rsplit('/').next().unwrap_or(name);
    // Hidden files are notes of an operating system.
    if file.starts_with('.') || name.starts_with("__MACOSX/") {
        return None;
    }
    let (stem, extension) = name.rsplit_once('.')?;
    let kind = match extension.to_ascii_lowercase().as_str() {
        "png" | "jpg" | "jpeg" => Kind::Image,
        "cls" => Kind::Class,
        "bmp" | "gif" | "ppm" | "tif" | "tiff" | "webp" | "avif" => Kind::Unsupported,
        _ => return None,
    };
    Some((stem, kind))
}

impl Sample {
    fn decode(&self, row: u64, channels: Option<usize>) -> Result<Picture, EngineError> {
        decode(&self.image, channels).map_err(|detail| {
            let detail = format!("{:?}: {detail}", clip(&self.name));
            self.fault("bad_image", row, detail)
        })
    }

    fn fault(&self, code: &'static str, row: u64, detail: String) -> EngineError {
        self.place.fault_at(code, Some(row), None, detail)
    }

    /// Returns the name of the folder that stands for the class.
    fn folder(&self) -> Option<&str> {
        let (path, _) = self.name.rsplit_once('/')?;
        let folder = if self.alone {
            path.split('/').next()?
        } else {
            path.rsplit('/').next()?
        };
        (!folder.is_empty() && folder != ".").then_some(folder)
    }
}

//! Batch predictions: what their spec names, and where they may write.

use nereid_core::{
    Violations,
    datasets::FileUris,
    ids::ProjectId,
    limits,
    spec::{BatchPredictSpec, batch_predict::BatchOutput},
};
use nereid_objects::S3Uri;
use nereid_store::ResourceKind::{Model, ModelAlias, ModelVersion};

use super::pin;
use crate::{
    ApiState,
    inspection::is_foreign,
    problem::{Problem, reference},
};

/// Prefix of all that Nereid itself keeps in its bucket.
const OWN_PREFIX: &str = "projects/";

/// Checks the spec against what it names and pins versions.
pub(super) async fn resolve(
    state: &ApiState,
    project: ProjectId,
    spec: &mut BatchPredictSpec,
) -> Result<(), Problem> {
    pin_model(state, project, spec).await?;
    let mut violations = Violations::default();
    if let Some(dataset) = &mut spec.input.dataset {
        let version = pin(state, project, dataset, "/spec/input/dataset").await?;
        let format = version.source.format;
        spec.output
            .check_format(format, "/spec/output", &mut violations);
    }
    let own = state.objects.bucket();
    let input = check_input(spec.input.uri.as_ref(), own, project, &mut violations);
    check_output(&mut spec.output, own, &input, &mut violations);
    Ok(violations.into_result(())?)
}

/// Looks up the version and writes its number into the spec.
async fn pin_model(
    state: &ApiState,
    project: ProjectId,
    spec: &mut BatchPredictSpec,
) -> Result<(), Problem> {
    let [model_at, version_at] = ["/spec/model", "/spec/version"];
    let model = state.store.model(project, &spec.model).await;
    let model = model.map_err(reference(&[Model], model_at))?;
    if let Some(alias) = spec.alias.take() {
        let found = state.store.aliased_version(project, &spec.model, &alias);
        let found = found.await;
        let found = found.map_err(reference(&[Model, ModelAlias], "/spec/alias"))?;
        spec.version = Some(found.version);
        return Ok(());
    }
    let version = spec.version.or(model.latest_version).ok_or_else(|| {
        let detail = format!("the model {} has no version", model.name);
        Problem::violation(model_at, "not_found", detail)
    })?;
    spec.version = Some(version);
    let found = state.store.model_version(project, &spec.model, version);
    let found = found.await.map(drop);
    found.map_err(reference(&[Model, ModelVersion], version_at))
}

/// Returns the addresses of the input.
fn check_input(
    uris: Option<&FileUris>,
    own_bucket: &str,
    project: ProjectId,
    v: &mut Violations,
) -> Vec<S3Uri> {
    let Some(uris) = uris else {
        return Vec::new();
    };
    let list = matches!(uris, FileUris::Several(_));
    let mut parsed = Vec::new();
    for (i, text) in uris.as_slice().iter().enumerate() {
        let pointer = if list {
            format!("/spec/input/uri/{i}")
        } else {
            "/spec/input/uri".to_owned()
        };
        match text.parse::<S3Uri>() {
            Ok(uri) if is_foreign(&uri, own_bucket, project) => {
                v.push(
                    pointer,
                    "access_denied",
                    "this object belongs to another project",
                );
            }
            Ok(uri) => parsed.push(uri),
            Err(e) => v.push(pointer, "invalid_value", e.to_string()),
        }
    }
    parsed
}

/// Checks where predictions go, and writes it as the prefix that it means.
fn check_output(output: &mut BatchOutput, own_bucket: &str, input: &[S3Uri], v: &mut Violations) {
    let at = "/spec/output/uri";
    if !output.uri.ends_with('/') {
        output.uri.push('/');
    }
    let uri: S3Uri = match output.uri.parse() {
        Ok(uri) => uri,
        Err(e) => {
            v.push(at, "invalid_value", e.to_string());
            return;
        }
    };
    let own = uri.bucket() == own_bucket && uri.key().starts_with(OWN_PREFIX);
    v.check(!own, at, "access_denied", || {
        format!("Nereid keeps its own files below s3://{own_bucket}/{OWN_PREFIX}; name another prefix or bucket")
    });
    let (length, max) = (uri.key().len(), limits::MAX_OUTPUT_KEY_LEN);
    v.check(length <= max, at, "too_long", || {
        format!("a prefix of {length} bytes is longer than the {max} allowed")
    });
    let read = |from: &&S3Uri| {
        from.key().ends_with('/')
            && from.bucket() == uri.bucket()
            && uri.key().starts_with(from.key())
    };
    if let Some(from) = input.iter().find(read) {
        let detail = format!(
            "predictions below {from}, which is the input, would be read as rows; name another prefix"
        );
        v.push(at, "conflict", detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(output: &str) -> Vec<String> {
        let mut to: BatchOutput = serde_json::from_value(json!({ "uri": output })).unwrap();
        let input = ["s3://data/new/".parse().unwrap()];
        let mut v = Violations::default();
        check_output(&mut to, "nereid", &input, &mut v);
        assert!(to.uri.ends_with('/'));
        v.into_vec().into_iter().map(|v| v.code).collect()
    }

    #[test]
    fn predictions_go_neither_among_nereids_files_nor_among_the_input() {
        for good in [
            "s3://data/out",
            "s3://data/newer/",
            "s3://nereid/predictions/",
        ] {
            assert!(codes(good).is_empty(), "{good}");
        }
        assert_eq!(codes("s3://nereid/projects/x/"), ["access_denied"]);
        assert_eq!(codes("s3://nereid/projects"), ["access_denied"]);
        assert_eq!(codes("s3://data/new/out/"), ["conflict"]);
        assert_eq!(codes("s3://data"), ["invalid_value"]);
        assert_eq!(codes("/tmp/out"), ["invalid_value"]);
        assert_eq!(
            codes(&format!("s3://data/{}", "x".repeat(901))),
            ["too_long"]
        );
    }
}

//! Rewrites schemas into forms that client generators understand.
//!
//! Flattened structs become one object instead of `allOf`, and the variants of a tagged enum
//! become named schemas under a `oneOf` with a discriminator.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

const PREFIX: &str = "#/components/schemas/";
/// Fields that tell the variants of an enum apart.
const TAGS: [&str; 3] = ["type", "kind", "preset"];
/// Bodies in which unknown fields are mistakes.
const CLOSED: [&str; 6] = [
    "SubmitTrainJob",
    "SubmitDeployJob",
    "SubmitBatchPredictJob",
    "SubmitNoopJob",
    "TrainModel",
    "DeployModel",
];

/// Simplifies all schemas of the document.
pub(super) fn simplify(document: &mut Value) {
    let Some(Value::Object(mut schemas)) =
        document["components"].get_mut("schemas").map(Value::take)
    else {
        return;
    };
    correct(&mut schemas);
    let names: Vec<String> = schemas.keys().cloned().collect();
    for name in &names {
        let simple = merge(&schemas[name], &schemas);
        schemas.insert(name.clone(), simple);
    }
    // Said of them in the code, and lost where they are put together of several.
    for name in CLOSED {
        schemas[name]["additionalProperties"] = Value::Bool(false);
    }
    for name in &names {
        name_variants(name, &mut schemas);
    }
    document["components"]["schemas"] = Value::Object(schemas);
    tidy(&mut document["components"]["schemas"]);
    tidy(&mut document["paths"]);
    require(&mut document["paths"]);
    prune(document);
}

/// Shows what readers take where it differs from what serde's attributes say.
fn correct(schemas: &mut Map<String, Value>) {
    for name in ["TrainSpec", "WrittenNetwork", "NoopSpec"] {
        schemas[name]["additionalProperties"] = Value::Bool(false);
    }
    for name in ["Loss", "Metric", "Optimizer", "Callback"] {
        for variant in schemas[name]["oneOf"].as_array_mut().into_iter().flatten() {
            variant["additionalProperties"] = Value::Bool(false);
        }
    }
    schemas["TrainSpec"]["properties"]["metrics"]["items"] =
        json!({ "$ref": format!("{PREFIX}MetricOrName") });
}

/// Drops what says nothing, and writes bodies of bytes as OpenAPI has them.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("propertyNames") == Some(&json!({"type": "string"})) {
                map.remove("propertyNames");
            }
            for media in ["application/octet-stream", "application/x-tar"] {
                if let Some(content) = map.get_mut(media) {
                    content["schema"] = json!({"type": "string", "format": "binary"});
                }
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Makes parameters and bodies that may be absent, but not null, say so.
fn require(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some([Value::String(kind), Value::String(null)]) =
                map.get("type").and_then(Value::as_array).map(Vec::as_slice)
                && null == "null"
            {
                let kind = kind.clone();
                map.insert("type".to_owned(), Value::from(kind));
            }
            if let Some([only, null]) = map
                .get("oneOf")
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                && null["type"] == "null"
            {
                let Value::Object(only) = only.clone() else {
                    return;
                };
                *map = only;
            }
            map.values_mut().for_each(require);
        }
        Value::Array(items) => items.iter_mut().for_each(require),
        _ => {}
    }
}

/// Merges `allOf`; where a part is a choice, the choice moves outwards.
fn merge(schema: &Value, all: &Map<String, Value>) -> Value {
    let mut merged = schema.clone();
    if let Some(parts) = schema["allOf"].as_array() {
        let mut choices = vec![json!({})];
        for part in parts {
            let part = merge(resolve(part, all), all);
            let alternatives = part["oneOf"]
                .as_array()
                .cloned()
                .unwrap_or_else(|| vec![part]);
            choices = choices
                .iter()
                .flat_map(|left| alternatives.iter().map(|right| union(left, right, all)))
                .collect();
        }
        merged = match choices.len() {
            1 => choices.remove(0),
            _ => json!({ "oneOf": choices }),
        };
        // What is said of the whole: description, example.
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key != "allOf" {
                merged[key] = value.clone();
            }
        }
    } else if let Some(parts) = schema["oneOf"].as_array() {
        merged["oneOf"] = parts.iter().map(|part| merge(part, all)).collect();
    }
    merged
}

/// Merges two object schemas.
fn union(left: &Value, right: &Value, all: &Map<String, Value>) -> Value {
    let (left, right) = (
        merge(resolve(left, all), all),
        merge(resolve(right, all), all),
    );
    let mut merged = left.clone();
    for (key, value) in right.as_object().into_iter().flatten() {
        match (key.as_str(), merged.get_mut(key)) {
            ("properties", Some(Value::Object(properties))) => {
                properties.extend(value.as_object().cloned().unwrap_or_default());
            }
            ("required", Some(Value::Array(required))) => {
                required.extend(value.as_array().cloned().unwrap_or_default());
            }
            ("description", Some(_)) => {}
            _ => merged[key] = value.clone(),
        }
    }
    merged
}

fn resolve<'a>(schema: &'a Value, all: &'a Map<String, Value>) -> &'a Value {
    let name = schema["$ref"].as_str().and_then(|r| r.strip_prefix(PREFIX));
    name.and_then(|n| all.get(n)).unwrap_or(schema)
}

/// Gives the variants of a tagged enum names, and the enum a discriminator.
fn name_variants(name: &str, schemas: &mut Map<String, Value>) {
    let Some(variants) = schemas[name]["oneOf"].as_array().cloned() else {
        return;
    };
    let Some(tag) = TAGS
        .iter()
        .find(|tag| variants.iter().all(|v| tag_of(v, tag, schemas).is_some()))
    else {
        return;
    };
    let (mut references, mut mapping) = (Vec::new(), Map::new());
    for variant in variants {
        let word = tag_of(&variant, tag, schemas).unwrap_or_default();
        let reference = if let Some(reference) = variant["$ref"].as_str() {
            reference.to_owned()
        } else {
            let variant_name = format!("{}{}", pascal(&word), name.trim_end_matches("Spec"));
            schemas.insert(variant_name.clone(), variant);
            format!("{PREFIX}{variant_name}")
        };
        references.push(json!({ "$ref": reference }));
        mapping.insert(word, Value::from(reference));
    }
    schemas[name]["oneOf"] = Value::Array(references);
    schemas[name]["discriminator"] = json!({ "propertyName": tag, "mapping": mapping });
}

/// Returns the one value that a variant's tag may have.
fn tag_of(schema: &Value, tag: &str, all: &Map<String, Value>) -> Option<String> {
    let property = &resolve(schema, all)["properties"][tag];
    match resolve(property, all)["enum"].as_array()?.as_slice() {
        [word] => word.as_str().map(ToOwned::to_owned),
        _ => None,
    }
}

fn pascal(word: &str) -> String {
    let capital = |part: &str| {
        let mut chars = part.chars();
        chars
            .next()
            .map(|c| c.to_ascii_uppercase())
            .into_iter()
            .chain(chars)
            .collect::<String>()
    };
    word.split('_').map(capital).collect()
}

/// Drops schemas that nothing refers to any more.
fn prune(document: &mut Value) {
    let mut wanted = BTreeSet::new();
    let mut open = Vec::new();
    references(&document["paths"], &mut open);
    while let Some(name) = open.pop() {
        if wanted.insert(name.clone()) {
            references(&document["components"]["schemas"][&name], &mut open);
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| wanted.contains(name));
        schemas.sort_keys();
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = value["$ref"].as_str().and_then(|r| r.strip_prefix(PREFIX)) {
                found.push(name.to_owned());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

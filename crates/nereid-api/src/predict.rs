//! From a client's rows to a batch, and from a model's tensors to predictions.

pub(crate) mod csv;
pub(crate) mod images;
pub(crate) mod multipart;
pub(crate) mod options;

use nereid_core::endpoints::{ClassScore, Prediction};
pub(crate) use nereid_core::rows::{batch, predictions};

use crate::oip::outputs::largest;

/// Replaces the probabilities of all classes by the names of the likeliest ones.
pub(crate) fn keep_top(predictions: &mut [Prediction], count: usize, classes: &[String]) {
    for prediction in predictions {
        let Some(probabilities) = prediction.probabilities.take() else {
            continue;
        };
        let score = |i: usize| {
            let label = classes.get(i)?.clone();
            let probability = probabilities[i];
            Some(ClassScore { label, probability })
        };
        let top = largest(&probabilities, count);
        prediction.top = Some(top.into_iter().filter_map(score).collect());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use nereid_core::{
        datasets::encoding::TableEncoder,
        models::{Preprocessing, Signature},
        rows::Row,
        spec::Normalization,
        tensors::{DataType, Tensor, TensorSpec, TensorValues},
    };

    use super::*;

    pub(crate) fn signature(shape: &[i64], columns: Option<&[&str]>) -> Signature {
        let tensor = |name: &str, shape: Vec<i64>| TensorSpec {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            shape,
        };
        Signature {
            inputs: vec![tensor("input", [&[-1], shape].concat())],
            outputs: vec![tensor("prediction", vec![-1])],
            classes: None,
            columns: columns.map(|c| c.iter().map(|&s| s.to_owned()).collect()),
            preprocessing: Preprocessing {
                normalization: Normalization::None,
                offset: vec![0.0],
                scale: vec![1.0],
                impute: Vec::new(),
                columns: Vec::new(),
            },
        }
    }

    fn rows(json: &str) -> Vec<Row> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn takes_nested_flat_and_named_rows() {
        let image = signature(&[2, 2], None);
        let nested = batch(&rows("[[[1,2],[3,4]], [5,6,7,8]]"), &image, None).unwrap();
        assert_eq!((nested.rows, nested.values.len()), (2, 8));
        let table = signature(&[2], Some(&["a", "b"]));
        let named = batch(&rows(r#"[{"b": 2, "a": 1}, [3, 4]]"#), &table, None).unwrap();
        assert_eq!(named.values, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn points_at_each_mistake() {
        let table = signature(&[3], Some(&["a", "b", "c"]));
        let pointers = |json| -> Vec<String> {
            let violations = batch(&rows(json), &table, None).unwrap_err();
            violations
                .into_vec()
                .into_iter()
                .map(|v| v.pointer)
                .collect()
        };
        assert_eq!(
            pointers(r#"[[1,2,3],[1,2],[1,"x",3]]"#),
            ["/rows/1", "/rows/2/1"]
        );
        assert_eq!(
            pointers(r#"[{"a":1,"b":true}]"#),
            ["/rows/0/b", "/rows/0/c"]
        );
        assert_eq!(
            pointers(r#"[{"a":1,"b":2,"c":[3],"d":4}]"#),
            ["/rows/0/c", "/rows/0/d"]
        );
        assert_eq!(pointers("[]"), ["/rows"]);
        assert_eq!(pointers("[[[1,2,3]]]"), ["/rows/0"]);
    }

    /// A model of a number that may be missing, a category and a flag.
    pub(crate) fn mixed() -> Signature {
        let mut signed = signature(&[1], Some(&["age", "town", "flag"]));
        let input = signed.inputs.remove(0);
        for name in ["age", "town", "flag"] {
            let name = name.to_owned();
            signed.inputs.push(TensorSpec {
                name,
                ..input.clone()
            });
        }
        signed.preprocessing.columns = serde_json::from_value(serde_json::json!([
            {"name": "age", "kind": "number", "indicator": true, "missing": 3},
            {"name": "town", "kind": "category", "encoding": "one_hot", "categories": ["x", "y"]},
            {"name": "flag", "kind": "boolean"},
        ]))
        .unwrap();
        signed.preprocessing.impute = vec![30.0, 0.0, 0.0, 0.0, 0.0];
        signed
    }

    #[test]
    fn columns_of_mixed_kind_are_encoded_as_in_training() {
        let signed = mixed();
        let encoder = TableEncoder::new(&signed.preprocessing.columns);
        let encode = |json| batch(&rows(json), &signed, Some(&encoder));
        let good = r#"[{"flag": true, "town": "y", "age": 4}, {"town": "new", "flag": "no"}]"#;
        let values = encode(good).unwrap().values;
        assert_eq!(values[..5], [4.0, 0.0, 0.0, 1.0, 1.0]);
        assert!(values[5].is_nan());
        assert_eq!(values[6..], [1.0, 0.0, 0.0, 0.0]);
        let bad = r#"[[1, 2, 3], {"age": "old", "town": ["x"], "job": 1}]"#;
        let pointers: Vec<_> = encode(bad)
            .unwrap_err()
            .into_vec()
            .into_iter()
            .map(|v| v.pointer)
            .collect();
        assert_eq!(
            pointers,
            [
                "/rows/0",
                "/rows/1/age",
                "/rows/1/town",
                "/rows/1/flag",
                "/rows/1/job"
            ]
        );
    }

    #[test]
    fn reads_both_kinds_of_outputs() {
        let plain = signature(&[2], None);
        let signed = Signature {
            classes: Some(vec!["x".to_owned(), "y".to_owned()]),
            ..plain.clone()
        };
        let tensor = |name: &str, shape: Vec<usize>, values| Tensor {
            name: name.to_owned(),
            shape,
            values,
        };
        let regression = [tensor(
            "prediction",
            vec![2],
            TensorValues::Fp32(vec![0.5, 1.5]),
        )];
        assert_eq!(
            predictions(2, &regression, &plain).unwrap()[1].value,
            Some(1.5)
        );
        assert!(predictions(3, &regression, &plain).is_none());
        let classes = TensorValues::Int64(vec![0, 1]);
        let classifier = [
            tensor(
                "probabilities",
                vec![2, 2],
                TensorValues::Fp32(vec![0.9, 0.1, 0.2, 0.8]),
            ),
            tensor("class", vec![2], classes),
        ];
        let found = predictions(2, &classifier, &signed).unwrap();
        assert_eq!(found[1].label.as_deref(), Some("y"));
        assert!(predictions(2, &classifier, &plain).is_none());
        assert_eq!(found[1].probabilities.as_deref(), Some(&[0.2, 0.8][..]));
    }

    #[test]
    fn reads_outputs_of_several_labels_numbers_and_samples() {
        let plain = signature(&[2], None);
        let signed = Signature {
            classes: Some(vec!["x".to_owned(), "y".to_owned()]),
            ..plain.clone()
        };
        let tensor = |name: &str, shape: Vec<usize>, values| Tensor {
            name: name.to_owned(),
            shape,
            values,
        };
        let four = || TensorValues::Fp32(vec![0.9, 0.6, 0.2, 0.8]);
        let labels = TensorValues::Int64(vec![1, 1, 0, 1]);
        let outputs = [
            tensor("probabilities", vec![2, 2], four()),
            tensor("labels", vec![2, 2], labels),
        ];
        let found = predictions(2, &outputs, &signed).unwrap();
        assert_eq!(found[0].labels.as_deref().unwrap(), ["x", "y"]);
        assert_eq!(found[1].labels.as_deref().unwrap(), ["y"]);
        assert!(predictions(2, &outputs, &plain).is_none());
        let several = [tensor("prediction", vec![2, 2], four())];
        let found = predictions(2, &several, &plain).unwrap();
        assert_eq!(found[1].values.as_deref().unwrap(), [0.2, 0.8]);
        let outputs = [
            tensor("reconstruction", vec![2, 2], four()),
            tensor("anomaly_score", vec![2], TensorValues::Fp32(vec![0.1, 7.0])),
        ];
        let found = predictions(2, &outputs, &plain).unwrap();
        assert_eq!(found[1].anomaly_score, Some(7.0));
        assert_eq!(found[1].reconstruction.as_deref().unwrap(), [0.2, 0.8]);
    }
}

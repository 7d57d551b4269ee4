//! Figures of Keras 3.15 and scikit-learn.

use serde_json::json;

use super::*;

fn metrics(names: &[&str]) -> Vec<Metric> {
    let one = |name: &&str| match name.split_once(':') {
        None => json!({ "type": name }),
        Some((name, average)) => json!({"type": name, "average": average}),
    };
    let all = names
        .iter()
        .map(|n| serde_json::from_value(one(n)).unwrap());
    all.collect()
}

#[track_caller]
fn check(got: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        let error = (got[*name] - value).abs();
        assert!(error < 2e-6, "{name} is {}, not {value}", got[*name]);
    }
}

#[test]
fn auc_is_that_of_keras() {
    // Drawn so that positives tend to be higher; Keras' AUC() of them.
    let positive = [
        0.467_558_62,
        0.913_539,
        0.340_997_64,
        0.438_959_15,
        0.706_232_67,
        0.770_396_4,
        0.555_577_16,
        0.740_375_7,
        0.949_008_2,
        0.597_660_06,
        0.648_195_9,
        0.670_518_5,
        0.814_138_53,
        0.810_310_6,
        0.977_548_4,
        0.904_548_05,
        0.986_836_55,
        0.404_134_8,
        0.922_954_9,
    ];
    let negative = [
        0.550_968_8,
        0.235_281_94,
        0.105_195_63,
        0.315_237_55,
        0.557_427,
        0.161_449_55,
        0.036_414_91,
        0.283_186_3,
        0.063_527_13,
        0.209_087_3,
        0.139_660_8,
        0.659_479_2,
        0.073_846_7,
        0.308_264_02,
        0.668_213_37,
        0.349_927_07,
        0.434_149_4,
        0.696_567_54,
        0.664_260_57,
        0.322_031_6,
        0.530_410_2,
        0.550_05,
        0.290_259_1,
        0.497_800_02,
        0.652_441_8,
        0.080_452_84,
        0.649_196_74,
        0.010_294_413,
        0.670_047_1,
        0.680_840_2,
        0.575_661_66,
    ];
    let measures = Measures::new(&metrics(&["auc"]), 2, Reading::Binary, false);
    let mut tally = Tally::default();
    for (class, outputs) in [(1, &positive[..]), (0, &negative[..])] {
        let targets = BatchTargets::Class(vec![class; outputs.len()]);
        measures.add(&mut tally, outputs, &targets, 0.0, false);
    }
    assert_eq!(tally.samples, 50);
    check(&measures.values(&tally, ""), &[("auc", 0.852_292)]);
}

#[test]
fn labels_are_measured_one_by_one_and_together() {
    let names = [
        "binary_accuracy",
        "hamming_loss",
        "auc",
        "f1",
        "f1:micro",
        "f1:weighted",
        "precision",
        "recall:micro",
    ];
    let targets = BatchTargets::Many {
        values: vec![1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        width: 3,
    };
    let outputs = [0.8, 0.3, 0.6, 0.4, 0.9, 0.2, 0.55, 0.45, 0.7_f32];
    for logits in [false, true] {
        let measures = Measures::new(&metrics(&names), 3, Reading::Labels, logits);
        let mut tally = Tally::default();
        let logit = |p: f32| if logits { (p / (1.0 - p)).ln() } else { p };
        measures.add(&mut tally, &outputs.map(logit), &targets, 0.0, false);
        // Labels: one hit of two with a false alarm, one of one, two of two.
        let expected = [
            ("binary_accuracy", 7.0 / 9.0),
            ("hamming_loss", 2.0 / 9.0),
            ("auc", 0.833_333_3),
            ("f1", (0.5 + 1.0 + 1.0) / 3.0),
            ("f1_micro", 8.0 / 10.0),
            ("f1_weighted", (2.0 * 0.5 + 1.0 + 2.0) / 5.0),
            ("precision", (0.5 + 1.0 + 1.0) / 3.0),
            ("recall_micro", 0.8),
        ];
        check(&measures.values(&tally, ""), &expected);
        assert!(measures.fits(&tally, 3) && !measures.fits(&tally, 2));
    }
}

#[test]
fn numbers_are_measured_one_by_one_or_pooled() {
    let names = ["mae", "mse", "rmse", "mape", "r2"];
    let targets = BatchTargets::Many {
        values: vec![1.0, 10.0, 2.0, 30.0, 3.0, 20.0],
        width: 2,
    };
    let outputs = [1.5, 10.0, 2.0, 24.0, 2.5, 20.0];
    let mape = 100.0 * (0.5 + 0.2 + 0.5 / 3.0) / 6.0;
    let squares = 0.5 + 36.0;
    for (reading, r2) in [
        (
            Reading::Values,
            f64::midpoint(1.0 - 0.5 / 2.0, 1.0 - 36.0 / 200.0),
        ),
        (
            Reading::Pooled,
            1.0 - squares / (1414.0 - 66.0 * 66.0 / 6.0),
        ),
    ] {
        let measures = Measures::new(&metrics(&names), 2, reading, false);
        let mut tally = Tally::default();
        measures.add(&mut tally, &outputs, &targets, 0.0, false);
        let expected = [
            ("mae", 7.0 / 6.0),
            ("mse", squares / 6.0),
            ("rmse", (squares / 6.0).sqrt()),
            ("mape", mape),
            ("r2", r2),
        ];
        check(&measures.values(&tally, ""), &expected);
    }
}

#[test]
fn matthews_correlation_is_that_of_scikit_learn() {
    let measures = Measures::new(
        &metrics(&["matthews_correlation"]),
        3,
        Reading::Classes,
        false,
    );
    let mut tally = Tally::default();
    // matthews_corrcoef([0, 0, 1, 2, 2, 1], [0, 1, 1, 2, 0, 1])
    let predicted = [0, 1, 1, 2, 0, 1];
    let mut outputs = vec![0.0; 18];
    for (row, class) in predicted.into_iter().enumerate() {
        outputs[row * 3 + class] = 1.0;
    }
    let targets = BatchTargets::Class(vec![0, 0, 1, 2, 2, 1]);
    measures.add(&mut tally, &outputs, &targets, 0.0, false);
    let expected = 12.0 / (24.0_f64 * 22.0).sqrt();
    check(
        &measures.values(&tally, ""),
        &[("matthews_correlation", expected)],
    );
}

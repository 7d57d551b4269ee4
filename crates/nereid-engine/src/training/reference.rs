//! Layers, losses, optimisers, schedules and metrics against Keras' and PyTorch's own numbers.
//!
//! The vectors lie in `tests/reference` beside the script that made them, in double precision.
//! Each case is a whole spec, so that one for a new layer or optimiser needs no line here.

pub(crate) mod case;
mod close;
mod coverage;
mod run;

use nereid_core::workers::DeviceKind;

use case::{CallbackCase, Case, InitializerCase, MetricCase, cases};
use close::Differences;

use crate::device::devices;

/// Cases whose weights may stray twice as far within ten steps, and why.
const ROUNDED: [(&str, &str); 3] = [
    (
        "loss/mape",
        "errors in per cent make losses and gradients of some hundred",
    ),
    (
        "GroupNormalization/groups_4_epsilon_1e-05",
        "a bias before it has no gradient but what rounding leaves, more of it on some devices",
    ),
    (
        "optimizer/schedule/",
        "Keras computes the rate in 32 bits, and Adam's first steps divide by small averages",
    ),
];

/// Relative difference allowed on a device.
fn allowed(device: DeviceKind) -> f64 {
    match device {
        DeviceKind::Cpu | DeviceKind::CpuNdarray | DeviceKind::Gpu => 1e-5,
    }
}

#[test]
fn trainings_are_those_of_keras_and_pytorch() {
    let mut failed = Vec::new();
    let mut covered = coverage::Coverage::default();
    for case in all() {
        let spec = match case.spec() {
            Ok(spec) => spec,
            Err(refused) => {
                failed.push(format!("{}: refused: {refused:?}", case.name));
                continue;
            }
        };
        covered.add(&case.spec, case.confirmed());
        for device in devices() {
            let outcome = run::train(&case, &spec, device);
            let rounded = ROUNDED.iter().any(|(name, _)| case.name.starts_with(name));
            let factor = if rounded { 2.0 } else { 1.0 };
            let mut differences = Differences::new(allowed(device) * factor);
            differences.add("output", &outcome.output, &case.output.values);
            differences.add("losses", &outcome.losses, &case.losses.values);
            for (what, got, expected) in [
                ("gradient", &outcome.gradients, &case.gradients),
                ("weight", &outcome.after, &case.after),
            ] {
                assert_eq!(got.len(), expected.len(), "{}: {what}s", case.name);
                differences.beside(expected.values().map(|a| a.values.as_slice()));
                for (name, array) in expected {
                    differences.add(&format!("{what} {name}"), &got[name], &array.values);
                }
            }
            failed.extend(differences.lines(&format!("{} on {}", case.name, device.as_str())));
        }
    }
    let n = failed.len();
    assert!(failed.is_empty(), "{n} differences\n{}", failed.join("\n"));
    covered.assert_complete();
}

fn all() -> Vec<Case> {
    ["layers", "more_layers", "training", "more_training"]
        .into_iter()
        .flat_map(cases)
        .collect()
}

#[test]
fn metrics_are_those_of_keras() {
    let mut failed = Vec::new();
    for case in cases::<MetricCase>("metrics") {
        let got = run::measure(&case);
        let mut differences = Differences::new(1e-6);
        for (name, expected) in &case.values {
            differences.add(name, &[got[name]], &[*expected]);
        }
        failed.extend(differences.lines(&case.name));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn callbacks_are_those_of_keras() {
    let mut failed = Vec::new();
    for case in cases::<CallbackCase>("callbacks") {
        let (rates, stopped) = run::callbacks(&case);
        assert_eq!(stopped, case.stopped, "{}", case.name);
        // Keras keeps its learning rate in 32 bits.
        let mut differences = Differences::new(1e-6);
        for (epoch, (rate, expected)) in rates.iter().zip(&case.rates).enumerate() {
            differences.add(&format!("rate of epoch {epoch}"), &[*rate], &[*expected]);
        }
        failed.extend(differences.lines(&case.name));
        assert_eq!(rates.len(), case.rates.len(), "{}", case.name);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn weights_start_as_those_of_keras() {
    let mut failed = Vec::new();
    for case in cases::<InitializerCase>("initializers") {
        let plan = case.plan().unwrap();
        let [mean, std, largest] = run::initial(&case, &plan);
        // Both are drawn, eight times: this is eight standard errors of the difference.
        let n: usize = case.shape.iter().product();
        let chance = 3.0 / f64::from(u32::try_from(n).unwrap()).sqrt();
        let within = |a: f64, b: f64, by: f64| (a - b).abs() <= by;
        let wide = case.std * chance;
        // Uniform and truncated numbers come close to their bounds; others have none.
        let edge = if case.largest <= 2.5 * case.std {
            0.02
        } else {
            0.25
        };
        if !within(mean, case.mean, wide + 1e-9)
            || !within(std, case.std, wide + 1e-9)
            || !within(largest, case.largest, edge * case.largest)
        {
            failed.push(format!("{case:?}: {mean} {std} {largest}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

//! Layers, losses, optimisers, schedules and metrics against Keras' and PyTorch's own numbers.
//!
//! The vectors lie in `tests/reference` beside the script that made them, in double precision.
//! Each case is a whole spec, so that one for a new layer or optimiser needs no line here.

mod case;
mod close;
mod coverage;
mod run;

use nereid_core::workers::DeviceKind;

use case::{CallbackCase, Case, MetricCase, cases};
use close::Differences;

/// Beginnings of the names of cases for what the engine does not have yet. A case that is refused
/// without being listed here fails, and one that is listed runs as soon as it is understood.
const PENDING: &[&str] = &[];

/// Devices this build has, each with the relative difference allowed.
fn devices() -> Vec<(DeviceKind, f64)> {
    vec![(DeviceKind::Cpu, 1e-5)]
}

#[test]
fn trainings_are_those_of_keras_and_pytorch() {
    let mut failed = Vec::new();
    let mut covered = coverage::Coverage::default();
    for case in all() {
        let spec = match case.spec() {
            Ok(spec) => spec,
            Err(_) if PENDING.iter().any(|p| case.name.starts_with(p)) => {
                println!("pending: {}", case.name);
                continue;
            }
            Err(refused) => {
                failed.push(format!("{}: refused: {refused:?}", case.name));
                continue;
            }
        };
        covered.add(&case.spec, case.confirmed());
        for (device, allowed) in devices() {
            let outcome = run::train(&case, &spec, device);
            let mut differences = Differences::new(allowed);
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
    ["layers", "training"].into_iter().flat_map(cases).collect()
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

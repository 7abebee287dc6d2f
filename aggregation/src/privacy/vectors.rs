//! The accountant against figures of dp-accounting, an independent
//! implementation: `aggregation/vectors/accounting.json`, written by
//! `accounting.py` beside it.

use super::{Mechanism, Orders, Pure, Rho, SampledGaussian, Spent, epsilon, pld};
use serde_json::Value;

fn rows(name: &str) -> Vec<Value> {
    let text = include_str!("../../vectors/accounting.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    vectors[name].as_array().unwrap().clone()
}

fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap()
}

fn count(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap()
}

fn gaussian(row: &Value) -> SampledGaussian {
    SampledGaussian::new(number(row, "noise_multiplier"), 1.0, number(row, "q")).unwrap()
}

fn near(found: f64, expected: f64, row: &Value) {
    let off = (found / expected - 1.0).abs();
    assert!(off < 1e-6, "expected {expected}, found {found}: {row}");
}

fn hold(spent: &Spent, row: &Value) {
    let expected = number(row, "epsilon");
    near(spent.epsilon(number(row, "delta")).unwrap(), expected, row);
    near(spent.delta(0.9 * expected).unwrap(), number(row, "delta_at_nine_tenths"), row);
}

#[test]
fn subsampled_gaussians_cost_what_dp_accounting_says() {
    let rows = rows("gaussians");
    assert!(rows.len() >= 200, "{}", rows.len());
    for row in &rows {
        let mechanism: Mechanism = gaussian(row).into();
        let rounds = count(row, "rounds");
        hold(&Spent::default().add(&mechanism, rounds), row);
        // What the orders below 2 would have saved. Much, where epsilon is
        // large; there the integers are no use.
        let delta = number(row, "delta");
        let at_integers = epsilon(&mechanism, rounds, delta, &Orders::integer()).unwrap();
        let most = if number(row, "noise_multiplier") < 1.0 { 1.25 } else { 1.05 };
        let expected = number(row, "epsilon");
        assert!(expected > 5.0 || at_integers < most * expected, "{at_integers}: {row}");
    }
}

#[test]
fn pure_releases_cost_what_dp_accounting_says() {
    for row in rows("pure") {
        let pure = Pure::new(number(&row, "pure_epsilon")).unwrap();
        hold(&Spent::default().add(&pure.into(), count(&row, "count")), &row);
    }
}

#[test]
fn a_sequence_of_different_releases_costs_what_dp_accounting_says() {
    for row in rows("mixed") {
        let tables = Rho::gaussian(number(&row, "table_noise_multiplier"), 1.0).unwrap();
        let spent = Spent::default()
            .add(&gaussian(&row).into(), count(&row, "rounds"))
            .add(&tables.into(), count(&row, "tables"))
            .add(&Rho::new(number(&row, "rho")).unwrap().into(), 1);
        hold(&spent, &row);
    }
}

#[test]
fn loss_distributions_give_what_dp_accounting_says() {
    for row in rows("losses") {
        let found = pld::epsilon(&gaussian(&row), count(&row, "rounds"), number(&row, "delta"));
        let off = found.unwrap() / number(&row, "epsilon") - 1.0;
        // Not below, but for dp-accounting's own grid.
        assert!(off < 0.005 && off > -0.001, "{off}: {row}");
    }
}

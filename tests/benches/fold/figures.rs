//! Figures beside their limits: measured, printed, and written for machines.

use criterion::Criterion;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Criterion times; the median is kept for the summary.
pub struct Bench {
    criterion: Criterion,
    figures: BTreeMap<String, Value>,
}

impl Bench {
    pub fn new() -> Self {
        let criterion = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2))
            .without_plots();
        Self { criterion, figures: BTreeMap::new() }
    }

    /// The median of the seconds that a run takes.
    pub fn seconds(&mut self, name: &str, run: impl FnMut()) -> f64 {
        self.seconds_after(name, || (), run)
    }

    /// The same of a run that needs something made ready each time, which is not
    /// counted.
    fn seconds_after(&mut self, name: &str, mut ready: impl FnMut(), mut run: impl FnMut()) -> f64 {
        let mut times: Vec<Duration> = Vec::new();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    ready();
                    let start = Instant::now();
                    run();
                    let time = start.elapsed();
                    times.push(time);
                    total += time;
                }
                total
            });
        });
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }

    /// A speed in GB/s beside its limit.
    pub fn speed(
        &mut self,
        name: &str,
        bytes: f64,
        limit: Option<(&str, f64)>,
        run: impl FnMut(),
    ) -> f64 {
        self.speed_after(name, bytes, limit, || (), run)
    }

    /// As [`Bench::speed`], and [`Bench::seconds_after`].
    pub fn speed_after(
        &mut self,
        name: &str,
        bytes: f64,
        limit: Option<(&str, f64)>,
        ready: impl FnMut(),
        run: impl FnMut(),
    ) -> f64 {
        let speed = bytes / self.seconds_after(name, ready, run) / 1e9;
        self.note(name, speed, "GB/s", limit);
        speed
    }

    /// A figure beside its limit: of a speed the highest, of a time the lowest
    /// possible. The share is 1 at the limit and less below it.
    pub fn note(&mut self, name: &str, figure: f64, unit: &str, limit: Option<(&str, f64)>) {
        let mut entry = json!({ "figure": figure, "unit": unit });
        if let Some((what, limit)) = limit {
            let share = if unit.ends_with("/s") { figure / limit } else { limit / figure };
            entry["limit"] = json!(limit);
            entry["limit_is"] = json!(what);
            entry["share_of_limit"] = json!(share);
        }
        self.figures.insert(name.to_owned(), entry);
    }

    /// What the figure's share of its limit is meant to be at least.
    pub fn aim(&mut self, name: &str, share: f64) {
        if let Some(entry) = self.figures.get_mut(name) {
            entry["aim"] = json!(share);
            let found = entry["share_of_limit"].as_f64();
            entry["aim_met"] = json!(found.is_some_and(|found| found >= share));
        }
    }

    /// A table for people, target/bench/summary.json for machines.
    pub fn print_and_write(&self) {
        println!("\n{:<86}{:>8}  {:<5}{:>8}{:>7}{:>6}", "", "figure", "", "limit", "share", "aim");
        for (name, entry) in &self.figures {
            let number =
                |key: &str| entry[key].as_f64().map_or(String::new(), |v| format!("{v:.2}"));
            let unit = entry["unit"].as_str().unwrap_or_default();
            let (figure, limit, share) =
                (number("figure"), number("limit"), number("share_of_limit"));
            let met = match entry["aim_met"].as_bool() {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            println!(
                "{name:<86}{figure:>8}  {unit:<5}{limit:>8}{share:>7}{:>6} {met}",
                number("aim")
            );
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("summary.json");
        std::fs::write(&path, serde_json::to_string_pretty(&self.figures).unwrap()).unwrap();
        println!("\nfigures: target/bench/summary.json");
    }
}

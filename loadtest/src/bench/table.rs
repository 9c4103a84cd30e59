//! Figures of several contenders side by side: median, least and most of all rounds, and the ratio
//! to the first contender.

use std::fmt::Write as _;

use serde::Serialize;

use super::measure::Outcome;

/// All that was measured.
#[derive(Debug, Default)]
pub struct Table {
    contenders: Vec<String>,
    samples: Vec<Sample>,
    void: Vec<String>,
    broken: Vec<String>,
}

/// One figure of one contender in one round.
#[derive(Debug)]
struct Sample {
    figure: String,
    contender: usize,
    round: u16,
    value: f64,
}

/// The result of a bench.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// `bench`.
    command: &'static str,
    /// Why figures of a round mean nothing, and which; they are not in the rows.
    pub void: Vec<String>,
    /// Promises that were broken, and by whom.
    pub broken: Vec<String>,
    rows: Vec<Row>,
}

/// One figure of one contender.
#[derive(Debug, PartialEq, Serialize)]
struct Row {
    /// Its measure and its name.
    figure: String,
    contender: String,
    /// Of each round that was not void.
    values: Vec<f64>,
    median: f64,
    min: f64,
    max: f64,
    /// Of all rounds that both have, the median ratio to the first contender: machines have moods,
    /// and the figures of one round are from one mood.
    to_first: Option<f64>,
}

impl Table {
    /// A table for these contenders.
    pub fn new(contenders: Vec<String>) -> Self {
        Self {
            contenders,
            ..Self::default()
        }
    }

    /// Takes in what came of a measure. Figures that mean nothing are left out.
    pub fn add(&mut self, round: u16, contender: usize, measure: &str, outcome: Outcome) {
        let name = self.contenders.get(contender).cloned().unwrap_or_default();
        let place = format!("{measure} of {name}, round {round}");
        let void = outcome.results.iter().find_map(|it| it.void.as_ref());
        if let Some(reason) = void {
            self.void.push(format!("{place}: {reason}"));
            return;
        }
        for result in outcome.results.iter().filter(|result| result.is_broken()) {
            let lost = result.lost.unwrap_or_default();
            self.broken.push(format!("{place}: {lost} lost"));
        }
        let figures = outcome.figures.into_iter();
        self.samples.extend(figures.map(|(figure, value)| Sample {
            figure: format!("{measure}.{figure}"),
            contender,
            round,
            value,
        }));
    }

    /// What all rounds say together.
    pub fn summary(self) -> Summary {
        let mut figures: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !figures.contains(&sample.figure.as_str()) {
                figures.push(&sample.figure);
            }
        }
        let contenders = 0..self.contenders.len();
        let rows = figures.iter().flat_map(|figure| {
            let rows = contenders
                .clone()
                .map(|contender| self.row(figure, contender));
            rows.flatten()
        });
        Summary {
            command: "bench",
            rows: rows.collect(),
            void: self.void,
            broken: self.broken,
        }
    }

    fn row(&self, figure: &str, contender: usize) -> Option<Row> {
        let of = |contender| {
            let samples = self.samples.iter();
            samples.filter(move |it| it.figure == figure && it.contender == contender)
        };
        let values: Vec<f64> = of(contender).map(|sample| sample.value).collect();
        let ratios = of(contender).filter_map(|sample| {
            let first = of(0).find(|first| first.round == sample.round)?;
            Some(sample.value / first.value)
        });
        Some(Row {
            figure: figure.to_owned(),
            contender: self.contenders.get(contender)?.clone(),
            median: median(values.clone())?,
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
            to_first: median(ratios.collect()).filter(|ratio| ratio.is_finite()),
            values,
        })
    }
}

impl Summary {
    /// For people.
    pub fn to_text(&self) -> String {
        let width = |text: fn(&Row) -> &str| {
            let widths = self.rows.iter().map(|row| text(row).len());
            widths.max().unwrap_or(0).max("contender".len())
        };
        let (figure, contender) = (width(|row| &row.figure), width(|row| &row.contender));
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{:figure$}  {:contender$}  {:>12}  {:>12}  {:>12}  {:>6}  {:>8}",
            "figure", "contender", "median", "min", "max", "rounds", "to first"
        );
        for row in &self.rows {
            let ratio = row.to_first.map(short);
            let _ = writeln!(
                text,
                "{:figure$}  {:contender$}  {:>12}  {:>12}  {:>12}  {:>6}  {:>8}",
                row.figure,
                row.contender,
                short(row.median),
                short(row.min),
                short(row.max),
                row.values.len(),
                ratio.unwrap_or_default()
            );
        }
        let broken = self.broken.iter().map(|what| ("broken", what));
        for (kind, what) in self.void.iter().map(|what| ("void", what)).chain(broken) {
            let _ = writeln!(text, "{kind}: {what}");
        }
        text
    }
}

/// Few digits where there are many before the point.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        1_000.0.. => 0,
        100.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The value in the middle, or between the two there.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RunResult;

    fn outcome(value: f64, void: Option<&str>, lost: u64) -> Outcome {
        Outcome {
            figures: vec![("per_s".to_owned(), value)],
            results: vec![RunResult {
                void: void.map(str::to_owned),
                lost: Some(lost),
                ..RunResult::default()
            }],
        }
    }

    #[test]
    fn rounds_are_put_together_and_held_against_the_first_contender() {
        let mut table = Table::new(vec!["a".to_owned(), "b".to_owned()]);
        for (round, a, b) in [(1, 100.0, 50.0), (2, 10.0, 6.0), (3, 200.0, 140.0)] {
            table.add(round, 0, "sends", outcome(a, None, 0));
            table.add(round, 1, "sends", outcome(b, None, 0));
        }
        let summary = table.summary();
        let row = |values: &[f64], median, to_first| (values.to_vec(), median, to_first);
        let rows: Vec<_> = summary
            .rows
            .iter()
            .map(|it| row(&it.values, it.median, it.to_first))
            .collect();
        assert_eq!(rows[0], row(&[100.0, 10.0, 200.0], 100.0, Some(1.0)));
        // The rounds' ratios are 0.5, 0.6 and 0.7; that of the medians would be 0.5.
        assert_eq!(rows[1], row(&[50.0, 6.0, 140.0], 50.0, Some(0.6)));
        assert_eq!((summary.rows[1].min, summary.rows[1].max), (6.0, 140.0));
        let text = summary.to_text();
        assert!(text.contains("sends.per_s"), "{text}");
        assert!(
            text.lines()
                .nth(2)
                .is_some_and(|line| line.ends_with("0.600"))
        );
    }

    #[test]
    fn what_means_nothing_is_left_out_and_a_loss_is_told() {
        let mut table = Table::new(vec!["a".to_owned()]);
        table.add(1, 0, "sends", outcome(1.0, Some("late"), 0));
        table.add(2, 0, "sends", outcome(3.0, None, 0));
        table.add(3, 0, "sends", outcome(5.0, None, 2));
        let summary = table.summary();
        assert_eq!(summary.rows[0].values, [3.0, 5.0]);
        assert_eq!(summary.rows[0].median, 4.0);
        assert_eq!(summary.void, ["sends of a, round 1: late"]);
        assert_eq!(summary.broken, ["sends of a, round 3: 2 lost"]);
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        let shown = [12_345.6, 123.45, 1.234, 0.123_4].map(short);
        assert_eq!(shown, ["12346", "123.5", "1.23", "0.123"]);
    }
}

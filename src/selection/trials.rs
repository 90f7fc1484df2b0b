//! Expands the values of a `[sweep]` table to the settings of each trial.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use toml::{Table, Value};

use crate::config::{
    file::sweep::{Search, SweepSection},
    keys::Key,
    settings::Settings,
};

/// Maximum number of trials: more than that is a mistake.
pub(crate) const MOST_TRIALS: usize = 100_000;

/// Number of consecutive draws that repeat earlier ones after which drawing stops.
const MOST_IN_VAIN: usize = 1000;

/// The values that a key can take.
enum Domain {
    Values(Vec<Value>),
    Real { min: f64, max: f64, log: bool },
    Integer { min: i64, max: i64, log: bool },
}

/// The settings of every trial: all combinations of the values, with the last key varying fastest, or as many random
/// draws as the section asks for. A combination that was drawn before is drawn again if there are others.
///
/// # Errors
/// Returns what is wrong with the section, and how to fix it.
pub fn trials(section: &SweepSection, seed: u64) -> Result<Vec<Settings>, [String; 2]> {
    let mut domains = Vec::new();
    for (key, value) in &section.keys {
        domains.push((key.clone(), domain(key, value)?));
    }
    let is_drawn = domains.iter().any(|(_, domain)| !matches!(domain, Domain::Values(_)));
    if section.search == Search::Random || is_drawn {
        let Some(n_trials) = section.trials else {
            return Err([
                "sweep.trials is missing: the number of settings that a distribution or a random search draws"
                    .into(),
                "set sweep.trials, as in trials = 50".into(),
            ]);
        };
        check_number(n_trials)?;
        return Ok(drawn(&domains, n_trials, seed));
    }
    if section.trials.is_some() {
        return Err([
            "sweep.trials is the number of settings to draw, but lists of values are tried completely".into(),
            "set sweep.search = \"random\" to draw from the lists, or leave trials out".into(),
        ]);
    }
    let mut all: Vec<Settings> = vec![Vec::new()];
    for (key, domain) in &domains {
        let Domain::Values(values) = domain else { unreachable!("distributions are drawn") };
        check_number(all.len().saturating_mul(values.len()))?;
        all = all
            .iter()
            .flat_map(|settings| {
                values.iter().map(move |value| {
                    let mut settings = settings.clone();
                    settings.push((key.clone(), value.clone()));
                    settings
                })
            })
            .collect();
    }
    Ok(all)
}

fn check_number(n_trials: usize) -> Result<(), [String; 2]> {
    match n_trials {
        0 => Err(["sweep.trials is 0".into(), "draw at least one setting".into()]),
        n if n > MOST_TRIALS => Err([
            format!("the sweep has {n} settings, more than {MOST_TRIALS}"),
            "name fewer values, or draw some of them with search = \"random\" and trials".into(),
        ]),
        _ => Ok(()),
    }
}

fn domain(key: &str, value: &Value) -> Result<Domain, [String; 2]> {
    let Value::Table(table) = value else {
        let values = match value {
            Value::Array(values) => values.clone(),
            one => vec![one.clone()],
        };
        return if values.is_empty() {
            Err([
                format!("sweep.{key} is an empty list"),
                "name values, or leave the key out".into(),
            ])
        } else {
            Ok(Domain::Values(values))
        };
    };
    let cure = || {
        format!(
            "write sweep.{key} as a list of values, or as {{ min = 1e-4, max = 1e-2, log = true }}"
        )
    };
    if let Some(other) = table.keys().find(|key| !["min", "max", "log"].contains(&key.as_str())) {
        return Err([
            format!(
                "sweep.{key} has a key `{other}`, but a distribution has only min, max and log"
            ),
            cure(),
        ]);
    }
    let log = match table.get("log") {
        None => false,
        Some(Value::Boolean(log)) => *log,
        Some(_) => return Err([format!("sweep.{key}.log is neither true nor false"), cure()]),
    };
    distribution(key, table, log).ok_or_else(|| {
        let needs = if log { "0 < min < max" } else { "min < max, and a finite max - min" };
        [format!("sweep.{key} is not a distribution: it needs numbers with {needs}"), cure()]
    })
}

fn distribution(key: &str, table: &Table, log: bool) -> Option<Domain> {
    let (min, max) = (table.get("min")?, table.get("max")?);
    let is_whole = Key::is_drawn_whole(key);
    if let (Value::Integer(min), Value::Integer(max), true) = (min, max, is_whole) {
        let (min, max) = (*min, *max);
        let valid = min < max && (!log || min > 0);
        return valid.then_some(Domain::Integer { min, max, log });
    }
    let number = |value: &Value| match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    };
    let (min, max) = (number(min)?, number(max)?);
    // The width of the range must be finite too.
    let valid = min < max && (max - min).is_finite() && (!log || min > 0.0);
    valid.then_some(Domain::Real { min, max, log })
}

fn drawn(domains: &[(String, Domain)], n_trials: usize, seed: u64) -> Vec<Settings> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut all: Vec<Settings> = Vec::with_capacity(n_trials);
    let mut seen = HashSet::new();
    // Lists and integers have a finite number of combinations: when new ones get rare, all have been drawn.
    let mut in_vain = 0;
    while all.len() < n_trials && in_vain < MOST_IN_VAIN {
        let settings: Settings =
            domains.iter().map(|(key, domain)| (key.clone(), draw(domain, &mut random))).collect();
        in_vain += 1;
        if seen.insert(format!("{settings:?}")) {
            all.push(settings);
            in_vain = 0;
        }
    }
    all
}

fn draw(domain: &Domain, random: &mut ChaCha8Rng) -> Value {
    match domain {
        Domain::Values(values) => values[random.gen_range(0..values.len())].clone(),
        Domain::Real { min, max, log } => Value::Float(between(*min, *max, *log, random)),
        Domain::Integer { min, max, log } => {
            // Every integer has an interval of the same length around it.
            let value = between(*min as f64 - 0.5, *max as f64 + 0.5, *log, random);
            Value::Integer((value.round() as i64).clamp(*min, *max))
        }
    }
}

fn between(min: f64, max: f64, log: bool, random: &mut ChaCha8Rng) -> f64 {
    let (low, high) = if log { (min.ln(), max.ln()) } else { (min, max) };
    // Two large numbers that differ by little may have the same logarithm.
    let drawn = if low < high { random.gen_range(low..high) } else { low };
    if log { drawn.exp() } else { drawn }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> SweepSection {
        toml::from_str(text).unwrap()
    }

    fn shown(settings: &Settings) -> String {
        let pairs = settings.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_grid_is_every_combination_with_the_last_key_varying_fastest() {
        let all = trials(
            &section("lr = [0.1, 0.2]\nkind = \"mlp\"\nseeds = 3\npooling = [\"cls\", \"mean\"]"),
            1,
        )
        .unwrap();
        let all: Vec<String> = all.iter().map(shown).collect();
        assert_eq!(
            all,
            [
                "kind=\"mlp\" lr=0.1 pooling=\"cls\"",
                "kind=\"mlp\" lr=0.1 pooling=\"mean\"",
                "kind=\"mlp\" lr=0.2 pooling=\"cls\"",
                "kind=\"mlp\" lr=0.2 pooling=\"mean\"",
            ]
        );
        assert_eq!(trials(&section(""), 1).unwrap(), [vec![]]);
    }

    #[test]
    fn drawn_settings_lie_in_their_ranges_and_follow_the_seed() {
        let text = "trials = 200\nlr = { min = 1e-4, max = 1e-2, log = true }\nepochs = { min = 2, max = 5 }\ndropout = [0.0, 0.5]";
        let all = trials(&section(text), 7).unwrap();
        assert_eq!(all.len(), 200);
        assert_eq!(all, trials(&section(text), 7).unwrap());
        assert_ne!(all, trials(&section(text), 8).unwrap());
        let mut below = 0;
        for settings in &all {
            let [(_, dropout), (_, epochs), (_, lr)] = &settings[..] else { panic!() };
            assert!([0.0, 0.5].contains(&dropout.as_float().unwrap()));
            assert!((2..=5).contains(&epochs.as_integer().unwrap()));
            let lr = lr.as_float().unwrap();
            assert!((1e-4..=1e-2).contains(&lr));
            below += usize::from(lr < 1e-3);
        }
        assert!(
            (70..130).contains(&below),
            "a logarithmic rate lies below its middle half of the time: {below}"
        );
    }

    #[test]
    fn only_keys_of_whole_numbers_are_drawn_whole() {
        let text =
            "trials = 20\nepochs = { min = 1, max = 9 }\nweight_decay = { min = 0, max = 1 }";
        for settings in trials(&section(text), 7).unwrap() {
            let [(_, epochs), (_, decay)] = &settings[..] else { panic!() };
            assert!(epochs.is_integer() && decay.is_float(), "{settings:?}");
        }
        let text = "trials = 3\nunfreeze = { min = 0, max = 2 }\nlora_rank = { min = 4, max = 8 }";
        for settings in trials(&section(text), 7).unwrap() {
            assert!(settings.iter().all(|(_, value)| value.is_integer()), "{settings:?}");
        }
    }

    #[test]
    fn a_random_search_of_lists_draws_no_combination_twice() {
        let text = "search = \"random\"\ntrials = 10\nlr = [0.1, 0.2, 0.3]\ndropout = [0.0, 0.5]";
        let all = trials(&section(text), 3).unwrap();
        assert_eq!(all.len(), 6, "there are no more");
        let text = "trials = 10\nepochs = { min = 2, max = 4 }\nlr = [0.1, 0.1]";
        let all = trials(&section(text), 3).unwrap();
        assert_eq!(all.len(), 3, "three numbers, and one rate that is named twice");
    }

    #[test]
    fn numbers_that_floats_cannot_tell_apart_are_a_range_all_the_same() {
        for range in [
            "lr = { min = 1e300, max = 1.0000000000000002e300, log = true }",
            "epochs = { min = 9223372036854775806, max = 9223372036854775807 }",
        ] {
            let section = section(&format!("{range}\ntrials = 1"));
            assert_eq!(trials(&section, 1).unwrap().len(), 1, "{range}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("lr = []", "empty list"),
            ("lr = { min = 1e-2, max = 1e-4 }\ntrials = 3", "min < max"),
            ("weight_decay = { min = -1e308, max = 1.7e308 }\ntrials = 3", "a finite max - min"),
            ("lr = { min = 0.0, max = 1.0, log = true }\ntrials = 3", "0 < min"),
            ("lr = { low = 1 }", "key `low`"),
            ("lr = { min = 1e-4, max = 1e-2 }", "trials is missing"),
            ("trials = 4\nlr = [0.1]", "tried completely"),
            ("search = \"random\"\nlr = [0.1]", "trials is missing"),
            ("search = \"random\"\ntrials = 0\nlr = [0.1]", "is 0"),
        ] {
            let [error, hint] = trials(&section(text), 1).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!hint.is_empty());
        }
    }
}

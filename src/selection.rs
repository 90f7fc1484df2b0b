//! Sweeps: which heads are trained on which rows, and how they compare.
//!
//! - [`trials`]: the settings of `[sweep]`, one trial at a time;
//! - [`folds`]: which rows a head is trained on, and which it is evaluated on;
//! - [`halving`]: when the worse heads are dropped;
//! - [`leaderboard`]: the heads in order, with intervals, spreads, and which of them are not significantly worse than
//!   the best;
//! - [`bias_corrected`]: the winner's score without the luck of being the best of many;
//! - [`effects`]: the effect of each setting on the score;
//! - [`heat_map`]: the score over two settings, such as layer and pooling;
//! - [`curves`]: the score by layer, by the number of labels, and by the number of trials.
//!
//! All of it uses the validation rows; test rows play no part in it, even where scores on them are shown beside it.

pub(crate) mod bias_corrected;
pub(crate) mod curves;
pub(crate) mod effects;
pub(crate) mod folds;
pub(crate) mod halving;
pub(crate) mod heat_map;
pub(crate) mod leaderboard;
mod setting;
pub(crate) mod trials;

use serde::Serialize;

use crate::{
    metrics::scores::Scores,
    selection::{
        curves::{LayerScore, LearningPoint},
        effects::Effect,
        heat_map::HeatMap,
        leaderboard::Leaderboard,
    },
};

/// A leaderboard, and what can be derived from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepFindings {
    /// The heads in order.
    pub leaderboard: Leaderboard,
    /// The effect of each setting that was varied.
    pub effects: Vec<Effect>,
    /// The best head of each layer; empty unless layers were varied.
    pub layer_profile: Vec<LayerScore>,
    /// Layer x pooling; `None` unless both were varied.
    pub heat_map: Option<HeatMap>,
    /// The best head of each kind for each number of labels; empty unless `fraction` was varied.
    pub learning_curve: Vec<LearningPoint>,
    /// The expected best score of 1, 2, ... trials.
    pub expected_best: Vec<f64>,
    /// The scores of each row of the leaderboard on the test rows, where a sweep tests all heads. Nothing else here depends
    /// on them.
    pub test: Option<Vec<Scores>>,
}

impl SweepFindings {
    /// Summarises a leaderboard. `continuous` names the settings that were drawn from a distribution: their values are
    /// divided into bins.
    pub fn new(leaderboard: Leaderboard, continuous: &[String]) -> SweepFindings {
        SweepFindings {
            effects: effects::effects(&leaderboard, continuous),
            layer_profile: curves::layer_profile(&leaderboard),
            heat_map: curves::layer_key(&leaderboard)
                .and_then(|layer| heat_map::heat_map(&leaderboard, layer, "pooling")),
            learning_curve: curves::learning_curve(&leaderboard),
            // Heads that were dropped early would count as trials of their own.
            expected_best: if leaderboard.rows.iter().any(|row| row.rung.is_some()) {
                Vec::new()
            } else {
                curves::expected_best(
                    &curves::trials(&leaderboard),
                    leaderboard.metric.higher_is_better(),
                )
            },
            leaderboard,
            test: None,
        }
    }
}

//! The rules of SQuAD: when an answer is right, and how close it is.
//!
//! Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016, and "Know What You Don't
//! Know: Unanswerable Questions for SQuAD", 2018, as the published evaluation scripts compute them. Where the script of
//! v2.0 differs from that of v1.1, v2.0 is followed: gold answers that normalise to nothing are ignored if there are
//! others, and two answers without tokens agree.

use std::{collections::HashMap, sync::LazyLock};

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::{
    counts::defined_ratio,
    intervals::{self, Bootstrap},
    metric::Metric,
    probability::weighted_mean,
    scores::Scores,
};

/// Sums of F1 that differ by less than this are equal: they may be the same fractions added in another order.
const EQUAL_F1: f64 = 1e-9;

/// Metrics of answers to questions, in the order in which they are written as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QaMetrics {
    /// The metrics of [`Metric::OF_ANSWERS`].
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of questions.
    pub n: usize,
    /// The questions that have an answer; absent if all have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_answer: Option<AnswerScore>,
    /// The questions that have no answer; absent if all have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer: Option<AnswerScore>,
}

/// Metrics of some of the questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerScore {
    /// The metrics of [`Metric::OF_ANSWERS`] on these questions, without intervals.
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of these questions.
    pub n: usize,
}

/// A question with its gold answers and the predicted answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnsweredQuestion {
    /// All gold answers; for an impossible question there are none, or only empty ones.
    pub gold: Vec<String>,
    /// `None` predicts that there is no answer, as an empty text does.
    pub predicted: Option<String>,
}

/// Scores answers: exact match and F1, each the best over the gold answers, averaged over the questions.
///
/// Gold answers that normalise to nothing are ignored; if none remains, the right answer is that there is none. Whether
/// a question counts as impossible is decided before that.
///
/// ```
/// use frostbert::internals::metrics::metric::Metric;
/// use frostbert::internals::metrics::span::{AnsweredQuestion, evaluate};
///
/// let question = |gold: &[&str], predicted: Option<&str>| AnsweredQuestion {
///     gold: gold.iter().map(ToString::to_string).collect(),
///     predicted: predicted.map(String::from),
/// };
/// let metrics = evaluate(
///     &[
///         question(&["the Seine", "Seine river"], Some("Seine")),
///         question(&["in 1889"], Some("1889")),
///         question(&[""], Some("Eiffel")),
///     ],
///     None,
/// );
/// assert_eq!(metrics.scores.value(Metric::ExactMatch), Some(1.0 / 3.0));
/// assert!((metrics.scores.value(Metric::F1).unwrap() - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
/// assert_eq!(metrics.no_answer.unwrap().scores.value(Metric::ExactMatch), Some(0.0));
/// ```
pub fn evaluate(questions: &[AnsweredQuestion], bootstrap: Option<Bootstrap>) -> QaMetrics {
    let (exact, f1): (Vec<f64>, Vec<f64>) = questions.iter().map(best_over_gold).unzip();
    let means = |weights: &[u32]| {
        [&exact, &f1].map(|values| weighted_mean(values.iter().copied(), weights))
    };
    let score_where = |wanted: &dyn Fn(&AnsweredQuestion) -> bool| {
        let weights: Vec<u32> = questions.iter().map(|q| u32::from(wanted(q))).collect();
        AnswerScore {
            scores: Scores::new(Metric::OF_ANSWERS, means(&weights), [None; 2]),
            n: weights.iter().filter(|&&weight| weight > 0).count(),
        }
    };
    let intervals = bootstrap
        .map_or([None; 2], |settings| intervals::bootstrap(questions.len(), settings, means));
    let any_impossible = questions.iter().any(is_impossible);
    QaMetrics {
        scores: Scores::new(Metric::OF_ANSWERS, means(&vec![1; questions.len()]), intervals),
        n: questions.len(),
        has_answer: any_impossible.then(|| score_where(&|question| !is_impossible(question))),
        no_answer: any_impossible.then(|| score_where(&is_impossible)),
    }
}

fn is_impossible(question: &AnsweredQuestion) -> bool {
    question.gold.iter().all(String::is_empty)
}

/// Exact match and F1, each with the best-matching gold answer.
pub(super) fn best_over_gold(question: &AnsweredQuestion) -> (f64, f64) {
    let predicted = question.predicted.as_deref().unwrap_or("");
    let mut gold: Vec<&str> = question.gold.iter().map(String::as_str).collect();
    gold.retain(|answer| !normalize_answer(answer).is_empty());
    if gold.is_empty() {
        gold.push("");
    }
    let is_exact = gold.iter().any(|answer| exact_match(predicted, answer));
    let best_f1 = gold.iter().map(|answer| f1(predicted, answer));
    (f64::from(u8::from(is_exact)), best_f1.fold(0.0, f64::max))
}

/// Normalises an answer for comparison: lower case, without ASCII punctuation, without the words a, an and the, and
/// with its tokens joined by single spaces.
///
/// The steps are applied in this order, so that "a-ha" becomes "aha" and "the.cat" becomes "thecat". A word is a run of
/// letters and digits, as in Python's regular expressions: a combining accent ends it, as white space does.
///
/// ```
/// use frostbert::internals::metrics::span::normalize_answer;
///
/// assert_eq!(normalize_answer(" The  U.S. of an  'A'-team"), "us of ateam");
/// ```
pub fn normalize_answer(answer: &str) -> String {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[\p{L}\p{N}]+").expect("a fixed pattern that compiles"));
    let mut lower = answer.to_lowercase();
    lower.retain(|character| !character.is_ascii_punctuation());
    let without_articles = WORD.replace_all(&lower, |word: &Captures| match &word[0] {
        "a" | "an" | "the" => " ".to_owned(),
        other => other.to_owned(),
    });
    let tokens = without_articles.split(is_python_space);
    let tokens: Vec<&str> = tokens.filter(|token| !token.is_empty()).collect();
    tokens.join(" ")
}

/// The characters at which Python's `str.split` splits: Unicode's white space and the four ASCII information
/// separators.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Whether two answers are the same once normalised.
///
/// ```
/// use frostbert::internals::metrics::span::exact_match;
///
/// assert!(exact_match("the Seine.", "Seine"));
/// assert!(exact_match("", "The"));
/// ```
pub fn exact_match(prediction: &str, gold: &str) -> bool {
    normalize_answer(prediction) == normalize_answer(gold)
}

/// F1 of two normalised answers as bags of tokens: `2 s / (p + g)` for `s` shared, `p` predicted and `g` gold tokens.
/// If one answer has no tokens, the F1 is 1 if the other has none either, and 0 otherwise.
///
/// ```
/// use frostbert::internals::metrics::span::f1;
///
/// assert_eq!(f1("in the year 1889", "1889"), 0.5);
/// ```
pub fn f1(prediction: &str, gold: &str) -> f64 {
    let [prediction, gold] = [prediction, gold].map(normalize_answer);
    let mut unmatched: HashMap<&str, u64> = HashMap::new();
    let mut n_tokens = 0;
    for token in gold.split_whitespace() {
        *unmatched.entry(token).or_default() += 1;
        n_tokens += 1;
    }
    let mut n_shared = 0;
    for token in prediction.split_whitespace() {
        n_tokens += 1;
        if let Some(left) = unmatched.get_mut(token).filter(|left| **left > 0) {
            *left -= 1;
            n_shared += 1;
        }
    }
    defined_ratio(2 * n_shared, n_tokens).unwrap_or(1.0)
}

/// The F1 of a question if it is answered and if it is not, and the margin that decides between the two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NullScore {
    /// Score of "no answer" minus score of the best span, in logits.
    pub margin: f64,
    /// F1 of the best span.
    pub f1_if_answered: f64,
    /// F1 of predicting "no answer": 1 for an impossible question, otherwise 0.
    pub f1_if_null: f64,
}

/// Finds the threshold `t` that maximises mean F1 if "no answer" is predicted for questions with a margin above `t`.
///
/// Every split of the sorted margins is tried, as in `find_best_thresh` of the v2.0 script; that script puts the
/// threshold on a margin, while here it is halfway between two. Equal margins always fall on the same side. The
/// outermost thresholds are 1 below the lowest and 1 above the highest margin. Among thresholds whose summed F1 is
/// within 1e-9 of the best, the one nearest to 0 wins, and the lower of two that are equally near.
///
/// A margin that is not finite is decided whatever the threshold (NaN: answered), so it is ignored. Returns 0 if none
/// remains.
///
/// ```
/// use frostbert::internals::metrics::span::{NullScore, best_no_answer_threshold};
///
/// let answerable = |margin| NullScore { margin, f1_if_answered: 1.0, f1_if_null: 0.0 };
/// let impossible = |margin| NullScore { margin, f1_if_answered: 0.0, f1_if_null: 1.0 };
/// let scores = [answerable(-3.0), impossible(2.0), answerable(1.0), impossible(4.0)];
/// assert_eq!(best_no_answer_threshold(&scores), 1.5);
/// ```
pub fn best_no_answer_threshold(scores: &[NullScore]) -> f64 {
    let mut sorted: Vec<&NullScore> = scores.iter().filter(|s| s.margin.is_finite()).collect();
    sorted.sort_by(|a, b| a.margin.total_cmp(&b.margin));
    let (Some(lowest), Some(highest)) = (sorted.first(), sorted.last()) else {
        return 0.0;
    };

    // With the threshold below all margins nothing is answered; each group of equal margins that it passes is.
    let mut summed_f1: f64 = sorted.iter().map(|score| score.f1_if_null).sum();
    let mut candidates = vec![(lowest.margin - 1.0, summed_f1)];
    let groups: Vec<_> = sorted.chunk_by(|a, b| a.margin == b.margin).collect();
    for (index, group) in groups.iter().enumerate() {
        let gains = group.iter().map(|score| score.f1_if_answered - score.f1_if_null);
        summed_f1 += gains.sum::<f64>();
        let threshold = groups
            .get(index + 1)
            .map_or(highest.margin + 1.0, |next| f64::midpoint(group[0].margin, next[0].margin));
        candidates.push((threshold, summed_f1));
    }

    let best = candidates.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
    let equally_good = candidates.iter().filter(|c| c.1 >= best - EQUAL_F1);
    equally_good
        .map(|&(threshold, _)| threshold)
        .min_by(|a, b| a.abs().total_cmp(&b.abs()))
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(gold: &[&str], predicted: Option<&str>) -> AnsweredQuestion {
        AnsweredQuestion {
            gold: gold.iter().map(ToString::to_string).collect(),
            predicted: predicted.map(String::from),
        }
    }

    #[test]
    fn json_has_the_two_halves_only_where_questions_are_impossible() {
        let names = |questions: &[AnsweredQuestion]| -> Vec<String> {
            let json = serde_json::to_value(evaluate(questions, None)).unwrap();
            json.as_object().unwrap().keys().cloned().collect()
        };
        let answerable = question(&["cat"], Some("cat"));
        let impossible = question(&[], None);
        assert_eq!(names(&[]), ["n"]);
        assert_eq!(names(std::slice::from_ref(&answerable)), ["exact_match", "f1", "n"]);
        assert_eq!(
            names(&[answerable, impossible]),
            ["exact_match", "f1", "n", "has_answer", "no_answer"]
        );
    }

    #[test]
    fn without_answerable_questions_their_half_has_a_number_only() {
        let metrics = evaluate(&[question(&[""], None)], Some(Bootstrap::default()));
        assert_eq!(metrics.has_answer, Some(AnswerScore::default()));
        assert_eq!(metrics.scores.interval(Metric::ExactMatch), Some([1.0, 1.0]));
    }

    #[test]
    fn saying_nothing_and_saying_an_empty_text_are_the_same() {
        for gold in [&["cat"] as &[&str], &[""], &["the"]] {
            let [none, empty] =
                [None, Some("")].map(|said| evaluate(&[question(gold, said)], None));
            assert_eq!(none, empty);
        }
    }

    #[test]
    fn a_threshold_that_makes_no_difference_is_as_near_to_zero_as_the_margins_let_it_be() {
        let same = |margin| NullScore { margin, f1_if_answered: 0.5, f1_if_null: 0.5 };
        assert_eq!(best_no_answer_threshold(&[same(-5.0), same(2.0), same(6.0)]), -1.5);
        assert_eq!(best_no_answer_threshold(&[same(7.0), same(7.0)]), 6.0);
        assert_eq!(best_no_answer_threshold(&[same(1.0), same(-1.0)]), 0.0);
    }

    #[test]
    fn the_threshold_never_parts_equal_margins() {
        let at_two = |f1_if_answered| NullScore {
            margin: 2.0,
            f1_if_answered,
            f1_if_null: 1.0 - f1_if_answered,
        };
        let scores = [at_two(1.0), at_two(0.0), at_two(0.0)];
        assert_eq!(best_no_answer_threshold(&scores), 1.0);
    }

    #[test]
    fn margins_that_no_threshold_decides_are_left_out() {
        let answerable = |margin| NullScore { margin, f1_if_answered: 1.0, f1_if_null: 0.0 };
        let undecided = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(answerable);
        assert_eq!(best_no_answer_threshold(&undecided), 0.0);
        let with_one = [undecided.as_slice(), &[answerable(3.0)]].concat();
        assert_eq!(best_no_answer_threshold(&with_one), 4.0);
    }
}

//! Which head is trained on an array, and how.

use crate::{
    config::{names::HeadKind, settings::MOST_UNITS},
    error::{Error, Result},
};

/// The action that an error names when it refuses an option.
pub(super) const FIT: &str = "fit a head";

/// The head that [`fit`](crate::fit) trains.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FitHead {
    /// Logistic regression, as with `head.kind = "logistic"` in a pipeline: the weights `W` and biases `b` that
    /// minimise `sum_i -log p_i(y_i) + |W|^2 / (2 C)` with `p = softmax(x W + b)`, as in scikit-learn's
    /// `LogisticRegression(C)`. The minimum is unique, so there is no learning rate to choose.
    Logistic {
        /// `C`, the inverse of the regularisation strength, above 0: smaller values regularise more. `None` stands for
        /// the best of 0.001, 0.01, ... 1000 by macro F1 on five folds of the rows, and of equally good ones that of the
        /// lowest log loss: `"auto"` in a pipeline.
        c: Option<f64>,
    },
    /// A network trained in steps, as with `head.kind = "linear"` or `"mlp"` in a pipeline without early stopping.
    Network(NetworkOptions),
}

impl FitHead {
    /// Logistic regression with this `C`.
    pub fn logistic(c: f64) -> FitHead {
        FitHead::Logistic { c: Some(c) }
    }

    /// A single linear layer, trained in steps.
    pub fn linear() -> FitHead {
        FitHead::Network(NetworkOptions::default())
    }

    /// Hidden layers of these widths with GELU activations, followed by a linear layer, trained in steps.
    pub fn mlp(hidden: &[usize]) -> FitHead {
        FitHead::Network(NetworkOptions::default().hidden(hidden))
    }

    /// The name of its kind in a pipeline file.
    pub(super) fn kind(&self) -> HeadKind {
        match self {
            FitHead::Logistic { .. } => HeadKind::Logistic,
            FitHead::Network(network) if network.hidden.is_empty() => HeadKind::Linear,
            FitHead::Network(_) => HeadKind::Mlp,
        }
    }
}

impl Default for FitHead {
    /// Logistic regression with a `C` that folds choose.
    fn default() -> FitHead {
        FitHead::Logistic { c: None }
    }
}

/// The network that [`fit`](crate::fit) trains, with cross-entropy, dropout 0.1, AdamW with a weight decay of 0.01, and
/// batches of 32 rows that are shuffled in each epoch. The last weights are kept.
///
/// ```
/// use frostbert::{FitHead, FitOptions, NetworkOptions};
///
/// let network = NetworkOptions::default().hidden(&[256]).epochs(30).learning_rate(3e-4);
/// let options = FitOptions::default().head(FitHead::Network(network));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NetworkOptions {
    /// Widths of the hidden layers, which have GELU activations. By default none: a linear head.
    pub hidden: Vec<usize>,
    /// Number of passes over the rows. By default 10.
    pub epochs: usize,
    /// The learning rate. By default 1e-3.
    pub learning_rate: f64,
}

impl Default for NetworkOptions {
    fn default() -> NetworkOptions {
        NetworkOptions { hidden: Vec::new(), epochs: 10, learning_rate: 1e-3 }
    }
}

impl NetworkOptions {
    /// Sets the widths of the hidden layers.
    #[must_use]
    pub fn hidden(mut self, hidden: &[usize]) -> NetworkOptions {
        self.hidden = hidden.to_vec();
        self
    }

    /// Sets the number of passes over the rows.
    #[must_use]
    pub fn epochs(mut self, epochs: usize) -> NetworkOptions {
        self.epochs = epochs;
        self
    }

    /// Sets the learning rate.
    #[must_use]
    pub fn learning_rate(mut self, learning_rate: f64) -> NetworkOptions {
        self.learning_rate = learning_rate;
        self
    }
}

/// How [`fit`](crate::fit) trains a head.
///
/// ```
/// use frostbert::{FitHead, FitOptions};
///
/// let logistic = FitOptions::default().head(FitHead::logistic(0.1)).balanced(true);
/// let mlp = FitOptions::default().head(FitHead::mlp(&[256])).seed(7);
/// assert!(logistic.standardize && mlp.standardize);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FitOptions {
    /// The head, with its settings. By default logistic regression with a `C` that folds over the rows choose.
    pub head: FitHead,
    /// Whether every feature is first standardised to mean 0 and variance 1 over the rows. By default true.
    pub standardize: bool,
    /// Whether the loss of a row is weighted by `n / (C n_c)`, with `n_c` of `n` rows in its class and `C` classes, so
    /// that all classes have the same total weight: scikit-learn's `class_weight="balanced"`. By default false.
    pub balanced: bool,
    /// Determines the initial weights, the dropout and the order of the rows for a network, and the folds that choose
    /// `C` for a logistic regression. By default 42.
    pub seed: u64,
}

impl Default for FitOptions {
    fn default() -> FitOptions {
        FitOptions { head: FitHead::default(), standardize: true, balanced: false, seed: 42 }
    }
}

impl FitOptions {
    /// Sets the head to train.
    #[must_use]
    pub fn head(mut self, head: FitHead) -> FitOptions {
        self.head = head;
        self
    }

    /// Sets whether features are standardised first.
    #[must_use]
    pub fn standardize(mut self, standardize: bool) -> FitOptions {
        self.standardize = standardize;
        self
    }

    /// Sets whether all classes have the same total weight.
    #[must_use]
    pub fn balanced(mut self, balanced: bool) -> FitOptions {
        self.balanced = balanced;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> FitOptions {
        self.seed = seed;
        self
    }

    /// Checks that every option is in range.
    ///
    /// # Errors
    /// Returns [`Error::Argument`] for the first option that is not.
    pub(super) fn check(&self) -> Result<()> {
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let (expected, got, hint) = match &self.head {
            FitHead::Logistic { c: Some(c) } if !above_zero(*c) => {
                ("a C above 0", c.to_string(), "1 is a good start")
            }
            FitHead::Network(network) if !above_zero(network.learning_rate) => (
                "a learning rate above 0",
                network.learning_rate.to_string(),
                "1e-3 is a good start",
            ),
            FitHead::Network(network) if network.epochs == 0 => {
                ("at least one epoch", "0".to_string(), "10 is a good start")
            }
            FitHead::Network(network)
                if !network.hidden.iter().all(|width| (1..=MOST_UNITS).contains(width)) =>
            {
                let widths = format!("{:?}", network.hidden);
                ("hidden layers of 1 to 65,536 units", widths, "256 is a good start")
            }
            _ => return Ok(()),
        };
        Err(Error::Argument { action: FIT, expected: expected.into(), got, hint: hint.into() })
    }
}

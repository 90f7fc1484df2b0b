//! What the tokens of samples are for where layers of an encoder are trained on their states: which of them attend to
//! one another, and whose states are rows of the head's outputs.

use std::{borrow::Cow, ops::Range};

use super::FeatureView;

/// What a token is for in a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenRole {
    /// Whether it is the first of a document that is pooled. A sample has one, or the two of a pair.
    pub begins_document: bool,
    /// Whether it is the first of a window. Tokens attend to those of their own window.
    pub begins_window: bool,
    /// Whether there is a row of outputs for it, as for the first token of a word. Where documents are pooled, there is
    /// none for any token.
    pub is_output: bool,
    /// Whether it is a token of a question.
    pub is_question: bool,
    /// Whether an answer may begin or end at it, or it is the first of a window, which stands for none.
    pub is_candidate: bool,
}

/// The roles of all rows of a view.
pub(super) struct RowRoles {
    roles: Vec<TokenRole>,
    /// The first output of each sample, followed by the number of outputs.
    output_start: Vec<usize>,
}

impl TokenRole {
    /// The roles of the tokens of documents that are pooled, given the numbers of tokens in the windows of each.
    pub(crate) fn of_documents<D>(documents: impl Iterator<Item = D>) -> Vec<TokenRole>
    where
        D: Iterator<Item = u32>,
    {
        let mut roles = Vec::new();
        for windows in documents {
            let first = roles.len();
            for n_tokens in windows {
                TokenRole::push_window(&mut roles, n_tokens as usize);
            }
            if let Some(role) = roles.get_mut(first) {
                role.begins_document = true;
            }
        }
        roles
    }

    /// Appends the tokens of a window, none of which is an output.
    pub(crate) fn push_window(roles: &mut Vec<TokenRole>, n_tokens: usize) {
        let first = roles.len();
        roles.resize(first + n_tokens, TokenRole::default());
        if let Some(role) = roles.get_mut(first) {
            role.begins_window = true;
        }
    }
}

/// The first output of each sample, followed by the number of outputs, given the first row of each, followed by the
/// number of rows. Without roles, every row is an output.
pub(crate) fn output_starts<'s>(starts: &'s [usize], roles: &[TokenRole]) -> Cow<'s, [usize]> {
    if roles.is_empty() {
        return Cow::Borrowed(starts);
    }
    let mut n_outputs = 0;
    let mut output_starts = Vec::with_capacity(starts.len());
    output_starts.push(0);
    for rows in starts.windows(2) {
        n_outputs += roles[rows[0]..rows[1]].iter().filter(|role| role.is_output).count();
        output_starts.push(n_outputs);
    }
    Cow::Owned(output_starts)
}

impl<'c> FeatureView<'c> {
    /// Returns the same samples, whose tokens have these roles: one for each row, in the order of the samples.
    ///
    /// # Panics
    /// Panics if there are more or fewer than rows.
    pub(crate) fn with_roles(mut self, roles: Vec<TokenRole>) -> FeatureView<'c> {
        assert_eq!(roles.len(), self.n_rows(), "a role for each row");
        let output_start = output_starts(&self.row_start, &roles).into_owned();
        // A view without rows needs no roles.
        self.roles = (!roles.is_empty()).then_some(RowRoles { roles, output_start });
        self
    }

    /// Returns the range of a sample's outputs among those of all samples, for a head that has an output for each row
    /// or for each token that [is one](TokenRole::is_output).
    pub(crate) fn outputs_of(&self, sample: u32) -> Range<usize> {
        match &self.roles {
            None => self.rows_of(sample),
            Some(roles) => {
                let sample = sample as usize;
                roles.output_start[sample]..roles.output_start[sample + 1]
            }
        }
    }

    /// Returns the roles of the rows of some samples, one after the other; empty if the view has none.
    pub(super) fn roles_of(&self, samples: &[u32]) -> Vec<TokenRole> {
        let Some(RowRoles { roles, .. }) = &self.roles else {
            return Vec::new();
        };
        let rows = samples.iter().map(|sample| &roles[self.rows_of(*sample)]);
        rows.flatten().copied().collect()
    }
}

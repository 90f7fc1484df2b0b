//! Maps the tokens of a window to rows of the position table.

/// How positions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenPositions {
    /// The row of the first token.
    pub(super) first: i32,
    /// The id of the padding token and its row, if padding tokens inside a text are not counted.
    padding: Option<(i32, i32)>,
}

impl TokenPositions {
    /// Counts every token, from row 0.
    pub(super) const FROM_ZERO: TokenPositions = TokenPositions { first: 0, padding: None };

    /// Counts as RoBERTa does: starts at the row after the padding token's; a padding token takes the row of its own id
    /// and is not counted (`create_position_ids_from_input_ids` in `transformers`).
    pub(super) fn after_padding(padding_token: usize) -> TokenPositions {
        TokenPositions {
            first: padding_token as i32 + 1,
            padding: Some((padding_token as i32, padding_token as i32)),
        }
    }

    /// Returns the same rows, relative to a table that begins at `row`.
    pub(super) fn in_table_from(self, row: usize) -> TokenPositions {
        let row = row as i32;
        TokenPositions {
            first: self.first - row,
            padding: self.padding.map(|(token, place)| (token, place - row)),
        }
    }

    /// Returns the rows of a window's tokens.
    pub(super) fn of(self, ids: &[i32]) -> impl Iterator<Item = i32> + '_ {
        let mut next = self.first;
        ids.iter().map(move |id| match self.padding {
            Some((token, row)) if token == *id => row,
            _ => {
                next += 1;
                next - 1
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padding_token_in_a_text_takes_its_own_row_and_is_not_counted() {
        let ids = [0, 1, 9, 1, 1, 8, 2];
        let rows = |positions: TokenPositions| positions.of(&ids).collect::<Vec<_>>();
        assert_eq!(rows(TokenPositions::FROM_ZERO), [0, 1, 2, 3, 4, 5, 6]);
        let roberta = TokenPositions::after_padding(1);
        // The result of transformers 5.24: cumsum(ids != 1) * (ids != 1) + 1.
        assert_eq!(rows(roberta), [2, 1, 3, 1, 1, 4, 5]);
        assert_eq!(rows(roberta.in_table_from(1)), [1, 0, 2, 0, 0, 3, 4]);
    }
}

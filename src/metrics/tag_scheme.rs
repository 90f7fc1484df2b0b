//! The meaning of tags such as `B-PER`: the entities in a sequence of tags, and which tags may follow which.

/// A tag set in the IOB2 scheme: `O` is outside, `B-x` the first word of an entity of type `x`, `I-x` its other words.
///
/// Ramshaw and Marcus, "Text chunking using transformation-based learning", 1995, in the variant of Tjong Kim Sang and
/// Veenstra, "Representing text chunks", 1999, in which every entity starts with `B-`.
///
/// ```
/// use frostbert::internals::metrics::tag_scheme::TagScheme;
///
/// let scheme = TagScheme::new(&["O", "B-PER", "I-PER", "B-LOC"].map(String::from)).unwrap();
/// assert_eq!(scheme.types, ["PER", "LOC"]);
/// assert!(scheme.can_follow(Some(1), 2)); // B-PER I-PER
/// assert!(!scheme.can_follow(Some(3), 2)); // B-LOC I-PER
/// assert!(!scheme.can_follow(None, 2)); // I-PER at the start of a sentence
///
/// assert!(TagScheme::new(&["NOUN", "VERB"].map(String::from)).is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagScheme {
    /// The meaning of each label, by label id.
    pub tags: Vec<Tag>,
    /// Names of the entity types, in the order of their first occurrence in the labels; a type id is an index into this
    /// list.
    pub types: Vec<String>,
}

/// The meaning of one label. The number is a type id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `O`: no entity.
    Outside,
    /// `B-x`: the first word of an entity.
    Begin(usize),
    /// `I-x`: a word of an entity that started before.
    Inside(usize),
}

/// An entity, which consists of the words `start..end` of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entity {
    /// Type id.
    pub kind: usize,
    /// Index of the first word.
    pub start: usize,
    /// One past the index of the last word.
    pub end: usize,
}

impl TagScheme {
    /// The scheme of `labels`; `None` if one of them is neither `O` nor `B-` or `I-` with a type, or if none has a
    /// type.
    pub fn new(labels: &[String]) -> Option<Self> {
        let mut types: Vec<String> = vec![];
        let mut tags = vec![];
        for label in labels {
            let tag = match label.split_once('-') {
                None if label == "O" => Tag::Outside,
                Some(("B", name)) if !name.is_empty() => Tag::Begin(type_id(&mut types, name)),
                Some(("I", name)) if !name.is_empty() => Tag::Inside(type_id(&mut types, name)),
                _ => return None,
            };
            tags.push(tag);
        }
        (!types.is_empty()).then_some(Self { tags, types })
    }

    /// Whether the label `next` may follow the label `previous` in a valid sequence, or start one if `previous` is
    /// `None`: `I-x` follows only `B-x` and `I-x`, everything else follows anything.
    ///
    /// # Panics
    ///
    /// Panics if a label is not below the number of labels.
    pub fn can_follow(&self, previous: Option<usize>, next: usize) -> bool {
        match self.tags[next] {
            Tag::Outside | Tag::Begin(_) => true,
            Tag::Inside(kind) => {
                let previous = previous.map(|previous| self.tags[previous]);
                previous == Some(Tag::Begin(kind)) || previous == Some(Tag::Inside(kind))
            }
        }
    }
}

fn type_id(types: &mut Vec<String>, name: &str) -> usize {
    types.iter().position(|known| known == name).unwrap_or_else(|| {
        types.push(name.to_owned());
        types.len() - 1
    })
}

/// The entities of a sentence in order: each `B-x` with the `I-x` directly after it. An `I-x` without one before it is
/// ignored.
///
/// Same as seqeval's `mode="strict", scheme=IOB2`.
///
/// ```
/// use frostbert::internals::metrics::tag_scheme::{Entity, TagScheme, entities_conlleval, entities_strict};
///
/// let scheme = TagScheme::new(&["O", "B-PER", "I-PER"].map(String::from)).unwrap();
/// let tags = [1, 2, 0, 2];
/// let first = Entity { kind: 0, start: 0, end: 2 };
/// assert_eq!(entities_strict(&scheme, &tags), [first]);
/// assert_eq!(entities_conlleval(&scheme, &tags), [first, Entity { kind: 0, start: 3, end: 4 }]);
/// ```
///
/// # Panics
///
/// Panics if a tag is not below the number of labels.
pub fn entities_strict(scheme: &TagScheme, tags: &[usize]) -> Vec<Entity> {
    entities(tags.iter().map(|&tag| scheme.tags[tag]), Orphan::Dropped)
}

/// The entities of a sentence in order, where an `I-x` that continues no entity of its type starts one.
///
/// This is the rule of the `conlleval` script of the CoNLL shared tasks, and seqeval's default.
///
/// # Panics
///
/// Panics if a tag is not below the number of labels.
pub fn entities_conlleval(scheme: &TagScheme, tags: &[usize]) -> Vec<Entity> {
    entities(tags.iter().map(|&tag| scheme.tags[tag]), Orphan::StartsEntity)
}

/// What to do with an `I-x` that continues no entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphan {
    Dropped,
    StartsEntity,
}

pub(super) fn entities(tags: impl Iterator<Item = Tag>, orphan: Orphan) -> Vec<Entity> {
    let mut found: Vec<Entity> = vec![];
    for (word, tag) in tags.enumerate() {
        let start_with = |kind| Entity { kind, start: word, end: word + 1 };
        match (tag, found.last_mut()) {
            (Tag::Outside, _) => {}
            (Tag::Begin(kind), _) => found.push(start_with(kind)),
            (Tag::Inside(kind), Some(open)) if open.end == word && open.kind == kind => {
                open.end += 1;
            }
            (Tag::Inside(_), _) if orphan == Orphan::Dropped => {}
            (Tag::Inside(kind), _) => found.push(start_with(kind)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(labels: &[&str]) -> Option<TagScheme> {
        TagScheme::new(&labels.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_label_set_with_one_other_label_is_no_scheme() {
        assert!(scheme(&["O", "B-PER", "I-PER"]).is_some());
        for other in ["E-PER", "B", "I-", "PER", "o", "B_PER", ""] {
            assert_eq!(scheme(&["O", "B-PER", other]), None, "{other:?}");
        }
        assert_eq!(scheme(&["O"]), None);
        assert_eq!(scheme(&[]), None);
    }

    #[test]
    fn a_type_may_hold_hyphens_and_miss_its_first_or_inner_tag() {
        let scheme = scheme(&["I-a-b", "B-c"]).unwrap();
        assert_eq!(scheme.types, ["a-b", "c"]);
        assert_eq!(scheme.tags, [Tag::Inside(0), Tag::Begin(1)]);
    }

    #[test]
    fn an_inner_tag_follows_its_own_type_alone() {
        let scheme = scheme(&["O", "B-x", "I-x", "B-y", "I-y"]).unwrap();
        let before = |next| -> Vec<Option<usize>> {
            [None, Some(0), Some(1), Some(2), Some(3), Some(4)]
                .into_iter()
                .filter(|&previous| scheme.can_follow(previous, next))
                .collect()
        };
        assert_eq!(before(2), [Some(1), Some(2)]);
        assert_eq!(before(4), [Some(3), Some(4)]);
        assert_eq!([0, 1, 3].map(|next| before(next).len()), [6; 3]);
    }
}

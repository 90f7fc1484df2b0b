//! The error of a computation that has no result.

/// The result of the fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A matrix holds NaN or an infinity.
    #[error("the products of the features are not finite")]
    NotFinite,
}

//! Long lists come from the cluster in pages.

use idunno_shared::wire::control::ITEMS_PER_REQUEST_MAX;

/// The most items that a page may have.
pub fn page_limit() -> u32 {
    u32::try_from(ITEMS_PER_REQUEST_MAX).unwrap_or(u32::MAX)
}

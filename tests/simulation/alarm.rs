//! Notes every panic of a simulated thread: tasks and actors die of theirs in silence.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static IS_SET: Cell<bool> = const { Cell::new(false) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on the panics of this thread are noted and not printed.
pub fn set() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if IS_SET.get() {
                FIRST.with_borrow_mut(|first| first.get_or_insert_with(|| panic.to_string()).len());
            } else {
                usual(panic);
            }
        }));
    });
    IS_SET.set(true);
    FIRST.set(None);
}

/// The first panic since, if there was one.
pub fn first() -> Option<String> {
    FIRST.with_borrow(Clone::clone)
}

/// Panics are as usual again.
pub fn unset() {
    IS_SET.set(false);
}

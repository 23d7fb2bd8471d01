//! OFD files: signed by us and judged by the checkers in `tests/judges`, changed afterwards, and made by hand the
//! way the field and attackers make them.

mod hostile;
mod sign;
mod support;
mod verify;
mod wild;

//! Good histories pass, and whatever is wrong is seen.

mod hand_made;
mod story;
mod tampered;

//! A hashed timer wheel: many coarse deadlines at a few bytes each.
//!
//! Pure: it is told the time. `gateway` turns it and keeps in it one entry per
//! connection, whose deadline says when to look at the connection next, not
//! when it dies: a frame that arrives only stores a time stamp, and the wheel
//! moves the entry on when it comes by.

mod wheel;

pub use wheel::Wheel;

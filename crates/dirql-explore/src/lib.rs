//! Exploration: which instruction of a driver its interrupts, DPCs and threads meet at is searched, not left to luck.
//!
//! A run is a function of the image, the lab and a [`Schedule`](schedule::Schedule): where it departs from the default
//! policy. A [`Search`](search::Search) runs the schedules that can matter, a [`shrink`] leaves of a failing one what
//! the failure needs, and a token is the schedule as text.
//!
//! Nothing here prints, reads a clock or decides what a failure is: that is the [`Judge`](search::Judge)'s.

pub mod exec;
pub mod hb;
pub mod points;
pub mod schedule;
pub mod search;
pub mod shrink;

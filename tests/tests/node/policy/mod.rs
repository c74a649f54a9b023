//! Policies, and the traffic that they let pass or not.

mod flows;
mod live;
mod selectors;
mod stage;
mod world;

//! Policies, and the traffic that they let pass or not.

mod blocks;
mod example;
mod flows;
mod isolation;
mod live;
mod ports;
mod selectors;
mod stage;
mod tiers;
mod world;

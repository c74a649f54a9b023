//! Policies, and the traffic that they let pass or not.

mod arrival;
mod audit;
mod blocks;
mod example;
mod flows;
mod isolation;
mod live;
mod ports;
mod room;
mod selectors;
mod stage;
mod standing;
mod tiers;
mod world;

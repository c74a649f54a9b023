//! Services, tried with real traffic: who is served by whom, from where, by every kind of address.

mod claims;
mod direct;
mod endpoints;
mod everywhere;
mod express;
mod external;
mod flood;
mod gone;
mod host_ports;
mod load;
mod policies;
mod refused;
mod stage;
mod world;

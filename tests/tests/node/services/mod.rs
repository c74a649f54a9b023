//! Services, tried with real traffic: who is served by whom, from where, by every kind of address.

mod everywhere;
mod external;
mod host_ports;
mod stage;
mod world;

//! The host's own network: its devices, settings and routes.

mod device;
mod listening;
pub mod namespace;
mod overlay;
mod routes;
pub mod sysctl;
mod view;

pub use device::{Device, Uplinks, directly_connected, find_uplinks, is_pods, is_up, source_to};
pub use listening::listening;
pub use overlay::{
    NAME as OVERLAY, clash as overlay_clash, ensure as ensure_overlay, hint as overlay_hint, remove as remove_overlay,
    switch_on as switch_on_overlay,
};
pub use routes::{Overlay, apply as apply_routes, remove_all as remove_routes};
pub use view::{Given, View, view};

//! The filter between a guest and the network, a process of its own beside each VM that
//! has one. It has no network itself, and no file.
//!
//! ```text
//!   QEMU ◄── frames, one in each datagram ──► aegis-egress ◄── stream of frames ──► passt
//!                                                ▲   │
//!                                        orders, │   │ questions
//!                                        answers │   ▼ of DNS
//!                                              aegis-vmm
//! ```
//!
//! What a guest may reach is decided by [`gate`] for every packet in both directions, and
//! nowhere else. The guest's gateway is in here too ([`gateway`]), so that nothing of its
//! own network ever leaves the process.
//!
//! | module | what it owns |
//! |---|---|
//! | [`packet`] | what a frame is |
//! | [`policy`] | which addresses are reached |
//! | [`gate`] | what becomes of a frame |
//! | [`flows`] | whose datagrams are answers |
//! | `refusal` | what the guest is told of one that goes nowhere |
//! | [`stream`] | frames on the stream to passt |
//! | [`gateway`] | the gateway: who has its addresses, and names |
//! | [`filter`] | the sockets, and the order in which they are served |

#![cfg(target_os = "linux")]

pub mod filter;
pub mod flows;
pub mod gate;
pub mod gateway;
pub mod packet;
pub mod policy;
mod refusal;
pub mod stream;

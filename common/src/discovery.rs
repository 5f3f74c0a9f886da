//! The discovery messages: one JSON object in one UDP datagram. Described for other implementers in `docs/discovery.md`.

use serde::{Deserialize, Serialize};

//! The verb *kick*: devices out, wherever they are.

use std::sync::Arc;

use super::Ports;
use crate::hub::{Ending, Hub, Peer};
use crate::route::{RouteError, Seat};
use crate::types::{CloseReason, ConnId, DeviceId, UserId};
use crate::wire::pb::bus_item::Item;
use crate::wire::pb::{KickOrder, KickReason};

/// Who is to go.
#[derive(Debug, Clone)]
pub(crate) struct KickRequest {
    /// The user.
    pub user: UserId,
    /// One device, or all.
    pub device: Option<DeviceId>,
    /// What the client is told.
    pub may_reconnect: bool,
}

/// The ending of a kick for this reason.
fn ending(reason: KickReason, may_reconnect: bool) -> Ending {
    let reason = match reason {
        KickReason::Replaced => CloseReason::Replaced,
        KickReason::TokenExpired | KickReason::TokenRevoked => CloseReason::TokenExpired,
        KickReason::SlowConsumer => CloseReason::SlowConsumer,
        KickReason::Admin | KickReason::Unspecified => CloseReason::Kicked,
    };
    Ending { reason, may_reconnect }
}

/// Carries out an order on the connections here; returns on how many.
pub(super) fn obey(hub: &Hub, order: &KickOrder) -> usize {
    let Ok(user) = UserId::new(order.user_id) else { return 0 };
    let meant = |peer: &&Arc<Peer>| {
        let identity = &peer.identity;
        (order.device_id.is_empty() || identity.device.as_str() == order.device_id)
            && (order.conn_id == 0 || identity.conn.0 == order.conn_id)
    };
    let named = (order.conn_id != 0).then_some(ConnId(order.conn_id));
    if let Some(conn) = named {
        // First, so that a connection registered right now sees it.
        hub.condemn(conn);
    }
    let reason = KickReason::try_from(order.reason).unwrap_or(KickReason::Unspecified);
    let ending = ending(reason, order.may_reconnect);
    let found = hub.peers(user).iter().filter(meant).filter(|peer| peer.outbox.end(ending)).count();
    if let Some(conn) = named.filter(|_| found > 0) {
        hub.take_condemned(conn);
    }
    found
}

impl Ports {
    /// Ends a user's devices everywhere; returns how many were found.
    pub(crate) async fn kick(&self, request: &KickRequest) -> Result<usize, RouteError> {
        let device_id = request.device.as_ref().map(ToString::to_string).unwrap_or_default();
        let order = KickOrder {
            user_id: request.user.get(),
            device_id,
            reason: KickReason::Admin.into(),
            may_reconnect: request.may_reconnect,
            ..KickOrder::default()
        };
        let mut found = obey(&self.hub, &order);
        for route in self.routes.query(&[request.user]).await? {
            let elsewhere = route.devices.iter().filter(|d| d.seat.gateway != self.own);
            let meant =
                elsewhere.filter(|d| request.device.as_ref().is_none_or(|device| d.device == *device));
            found += meant.count();
            for gateway in route.gateways().into_iter().filter(|gateway| **gateway != self.own) {
                self.publish(gateway, Item::Kick(order.clone()));
            }
        }
        Ok(found)
    }

    /// Tells a connection that its device was bound anew: it is the one
    /// replaced, never the newcomer.
    pub(super) fn kick_replaced(&self, user: UserId, device: &DeviceId, seat: &Seat) {
        let order = KickOrder {
            user_id: user.get(),
            device_id: device.to_string(),
            conn_id: seat.conn.0,
            reason: KickReason::Replaced.into(),
            ..KickOrder::default()
        };
        if seat.gateway == self.own {
            obey(&self.hub, &order);
        } else {
            self.publish(&seat.gateway, Item::Kick(order));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::OutboxLimits;

    #[test]
    fn an_order_that_comes_before_its_connection_is_kept_for_it() {
        let hub = Hub::new(OutboxLimits { bytes: 1, frames: 1 });
        let order =
            KickOrder { user_id: 1, conn_id: 7, reason: KickReason::Replaced.into(), ..KickOrder::default() };
        assert_eq!(obey(&hub, &order), 0);
        assert!(!hub.take_condemned(ConnId(8)));
        assert!(hub.take_condemned(ConnId(7)));
        assert!(!hub.take_condemned(ConnId(7)), "once");
    }
}

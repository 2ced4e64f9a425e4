//! A gateway that is forgotten, and comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::super::testbed::{Testbed, team, user};

#[tokio::test(start_paused = true)]
async fn a_gateway_that_comes_back_while_it_is_forgotten_keeps_its_interest() {
    let bed = Testbed::new();
    let (here, there) = (bed.gateway("gw-a"), bed.gateway("gw-b"));
    bed.make_team(&[1, 2]);
    let _two = bed.connect(&there, 2).await;
    let interested = || bed.model.roster(&team(), &[]).unwrap().audience.gateways;
    for comes_back in [true, false] {
        there.ports.look_up_members(&team(), &[user(2)]).await;
        bed.table.set_living(&there.ports.own, false);
        bed.weather.lock().delay_ms = 1_000;
        let (ports, gateways) = (Arc::clone(&here.ports), interested());
        let asking = tokio::spawn(async move { ports.alive(&team(), &gateways).await });
        sleep(Duration::from_millis(1)).await;
        // The other one is known to be dead, and not forgotten yet.
        bed.table.set_living(&there.ports.own, comes_back);
        let alive = asking.await.unwrap();
        bed.weather.lock().delay_ms = 0;
        let expected = if comes_back { vec![there.ports.own.clone()] } else { Vec::new() };
        assert_eq!((alive, interested()), (expected.clone(), expected));
    }
}

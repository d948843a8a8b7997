//! What the server itself connects to for somebody: under the same rules as links of functions.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::egress::{Host, Target};
use tokio::time::timeout;

use super::address;
use super::policy::{Operator, Policy, Refusal};
use super::resolve::{Resolve, System};

/// How long a name may take to be found.
const LOOKUP: Duration = Duration::from_secs(10);

/// The places that the operator lets others name.
#[derive(Debug)]
pub struct Outside {
    operator: Operator,
    resolver: Arc<dyn Resolve>,
    own: address::Own,
}

impl Outside {
    /// The places an operator allows, found by the machine's own resolver.
    pub fn new(operator: Operator) -> Outside {
        Outside { operator, resolver: Arc::new(System), own: address::Own::default() }
    }

    /// The addresses of a place that may be connected to; `host` is a name or an address.
    ///
    /// # Errors
    /// Why there is none, for the user who named it.
    pub async fn find(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let (host_of, addresses) = match host.parse::<IpAddr>() {
            Ok(address) => (Host::Address(address), vec![address]),
            Err(_) => {
                let found = timeout(LOOKUP, self.resolver.resolve(host.to_owned())).await;
                let found = found.map_err(|_| format!("{host} took too long to be found"))?;
                let found = found.map_err(|error| format!("{host} is not found: {error}"))?;
                (Host::Name(host.to_owned()), found)
            }
        };
        let target = Target { host: host_of, port };
        let own = self.own.addresses();
        let allowed = Policy::default().decide(&self.operator, &target, true, &addresses, &own);
        match allowed {
            Ok(allowed) if allowed.is_empty() => Err(format!("{host} has no address")),
            Ok(allowed) => Ok(allowed),
            // No function is involved, so there is no list of its own to be on.
            Err(Refusal::Special(kind)) if !kind.never_opens() => Err(format!(
                "{host} is {kind}, which is reached only where the server's operator permits it \
                 (--egress-allow-private)"
            )),
            Err(refusal) => Err(format!("{host} {refusal}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_the_operator_permits_is_found() {
        let outside = Outside::new(Operator::default());
        for host in
            ["127.0.0.1", "localhost", "::1", "169.254.169.254", "10.0.0.1", "::ffff:127.0.0.1"]
        {
            let refused = outside.find(host, 80).await.expect_err(host);
            assert!(refused.contains(host), "{refused}");
            assert!(!refused.contains("function"), "{refused}");
        }
        assert!(outside.find("1.1.1.1", 80).await.is_ok());
        let permit = vec!["127.0.0.1".parse().expect("a net")];
        let outside = Outside::new(Operator { permit, ..Operator::default() });
        assert!(outside.find("127.0.0.1", 80).await.is_ok());
        assert!(outside.find("127.0.0.2", 80).await.is_err());
    }
}

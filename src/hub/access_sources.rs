//! Starting the sources of access control: the keys of tokens, and the application's webhook.

use std::sync::Arc;

use fanfare_core::access::{RevocationStore, TicketStore};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Decide, MemoryTickets, TokenVerifier},
    config::Config,
    error::StartError,
};

/// The sources of a hub.
#[derive(Default)]
pub(super) struct AccessSources {
    pub verifier: Option<Arc<dyn TokenVerifier>>,
    pub decider: Option<Arc<dyn Decide>>,
}

impl AccessSources {
    /// Starts the sources of a valid configuration.
    #[cfg(feature = "tokens")]
    pub fn start(config: &Config, stop: &CancellationToken) -> Result<Self, StartError> {
        use crate::{
            tokens::{FetchedKeys, Keys},
            web_client::WebClient,
            webhook::Webhook,
        };

        let access = &config.access;
        let (fetched, refresh) = FetchedKeys::new(&access.jwks).unzip();
        let has_webhook = !access.webhook.url.is_empty();
        if !access.enabled {
            return Ok(Self::default());
        }
        let mut decider: Option<Arc<dyn Decide>> = None;
        if refresh.is_some() || has_webhook {
            let web = WebClient::start(stop, |web| {
                if let Some(refresh) = refresh {
                    tokio::task::spawn_local(refresh.run(web.clone()));
                }
            })?;
            if has_webhook {
                let (webhook, limits) = (access.webhook.clone(), config.limits.clone());
                decider = Some(Arc::new(Webhook::new(webhook, limits, web)));
            }
        }
        let verifier = Keys::new(access, fetched).map(|keys| Arc::new(keys) as _);
        Ok(Self { verifier, decider })
    }

    /// Without the feature, a valid configuration has none.
    #[cfg(not(feature = "tokens"))]
    pub fn start(_: &Config, _: &CancellationToken) -> Result<Self, StartError> {
        Ok(Self::default())
    }
}

/// The stores shared by all instances.
pub(super) struct AccessStores {
    pub tickets: Arc<dyn TicketStore>,
    /// None without Redis: this process then keeps its revocations itself.
    pub revocations: Option<Arc<dyn RevocationStore>>,
}

/// The stores: in Redis, if it links instances.
pub(super) fn access_stores(
    config: &Config,
    stop: &CancellationToken,
) -> Result<AccessStores, StartError> {
    #[cfg(feature = "redis")]
    if config.access.enabled && !config.redis.url.is_empty() {
        let redis = Arc::new(crate::redis::start_follows(config, stop)?);
        return Ok(AccessStores { tickets: redis.clone(), revocations: Some(redis) });
    }
    let _ = (config, stop);
    Ok(AccessStores { tickets: Arc::new(MemoryTickets::default()), revocations: None })
}

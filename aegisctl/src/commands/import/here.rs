//! What is here already, as far as an import meets it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use aegis_bus::image::ImageView;
use aegis_bus::instance::InstanceView;
use aegis_bus::kit::KitView;
use aegis_bus::secrets::SecretEntry;
use aegis_bus::tether::ReadOptions;
use aegis_core::handle::Handle;
use aegis_core::port::PortMapping;
use aegis_core::tether::Frame;

use crate::client::Client;
use crate::failure::{Difference, Failure};
use crate::images;
use crate::original::{Plan, Problem, Wish};

/// How aegisd calls a kit that works.
const USABLE: &str = "ok";

/// What is here.
#[derive(Debug, Default)]
pub(super) struct Here {
    pub(super) instances: Vec<InstanceView>,
    /// Of wishes whose name is here: what is other than wished.
    pub(super) differences: BTreeMap<Handle, Vec<Difference>>,
    /// The newest message of those that have any.
    pub(super) newest: BTreeMap<Handle, Frame>,
    pub(super) secrets: Vec<SecretEntry>,
    pub(super) kits: Vec<KitView>,
    pub(super) images: Vec<ImageView>,
    /// Addresses that cannot be listened at, and why.
    pub(super) held: BTreeMap<SocketAddr, String>,
}

impl Here {
    /// Asks for what a plan meets.
    pub(super) async fn ask(client: &Client, plan: &Plan) -> Result<Self, Failure> {
        let mut here = Self {
            instances: client.instances().await?,
            secrets: client.secrets().await?,
            kits: client.kits().await?,
            images: client.images().await?,
            ..Self::default()
        };
        for wish in &plan.wishes {
            if here.instance(&wish.handle).is_some() {
                let differences = differences(client, wish).await?;
                here.differences.insert(wish.handle.clone(), differences);
                let newest = newest(client, &wish.handle).await?;
                here.newest
                    .extend(newest.map(|frame| (wish.handle.clone(), frame)));
            } else {
                here.held.extend(wish.addresses().filter_map(held));
            }
        }
        Ok(here)
    }

    pub(super) fn instance(&self, handle: &Handle) -> Option<&InstanceView> {
        let mut instances = self.instances.iter();
        instances.find(|view| view.handle.eq_ignore_ascii_case(handle.as_str()))
    }

    pub(super) fn secret(&self, name: &str) -> Option<&SecretEntry> {
        self.secrets.iter().find(|secret| secret.name == name)
    }

    fn kit(&self, name: &str) -> Option<&KitView> {
        self.kits.iter().find(|kit| kit.name == name)
    }

    /// Whether a wish is fulfilled, and what stands in its way. A port may be wanted by
    /// one wish after another; `listening` has those before this one. Secrets are looked
    /// for where they do not come along.
    pub(super) fn look(
        &self,
        wish: &Wish,
        secrets_come: bool,
        listening: &mut BTreeMap<SocketAddr, Handle>,
    ) -> (bool, Vec<Problem>) {
        let name = || wish.handle.clone();
        if let Some(differences) = self.differences.get(&wish.handle) {
            return match differences.is_empty() {
                true => (true, Vec::new()),
                false => {
                    let words: Vec<_> = differences.iter().map(ToString::to_string).collect();
                    let differences = words.join("; ");
                    let name = name();
                    (false, vec![Problem::Taken { name, differences }])
                }
            };
        }
        let mut problems = Vec::new();
        if let Some(path) = wish.workspace().filter(|path| !path.is_dir()) {
            let (name, path) = (name(), path.to_owned());
            problems.push(Problem::NoWorkspace { name, path });
        }
        for secret in wish.secrets() {
            let here = self.secret(secret.as_str());
            if !secrets_come && !here.is_some_and(|secret| secret.readable) {
                let (name, secret) = (name(), secret.clone());
                problems.push(Problem::NoSecret { name, secret });
            }
        }
        if let Some(kit) = &wish.spec.kit {
            let (name, kit) = (name(), kit.clone());
            match self.kit(&kit) {
                None => problems.push(Problem::NoKit { name, kit }),
                Some(view) if view.status != USABLE => {
                    let why = view.status_reason.clone();
                    problems.push(Problem::BrokenKit { name, kit, why });
                }
                Some(_) => {}
            }
        }
        // What is disabled listens at nothing.
        for port in wish.addresses().filter(|_| wish.enabled) {
            let other = listening.insert(port, wish.handle.clone());
            let other = other.map(|handle| format!("'{handle}', which is imported too"));
            if let Some(by) = other.or_else(|| self.holder(port)) {
                let name = name();
                problems.push(Problem::PortTaken { name, port, by });
            }
        }
        (false, problems)
    }

    /// Who keeps us from listening at an address.
    fn holder(&self, address: SocketAddr) -> Option<String> {
        let has_it = |view: &&InstanceView| {
            let ports = view.ports.iter();
            let mut hosts = ports.filter_map(|port| Some(port.parse::<PortMapping>().ok()?.host));
            let conflicts = |host: SocketAddr| {
                let any = host.ip().is_unspecified();
                host.port() == address.port() && (any || host.ip() == address.ip())
            };
            view.enabled && hosts.any(conflicts)
        };
        match self.instances.iter().find(has_it) {
            Some(view) => Some(format!("the instance '{}'", view.handle)),
            None => self.held.get(&address).cloned(),
        }
    }

    /// The name of a wish's image, which may be its kit's, where that is to be pulled.
    pub(super) fn lacking_image(&self, wish: &Wish) -> Option<String> {
        let of_kit = || {
            let kit = self.kit(wish.spec.kit.as_deref()?)?;
            Some(kit.image.clone())
        };
        let name = wish.spec.image.clone().or_else(of_kit)?;
        let is_here = || matches!(images::find(&self.images, &name), Ok(Some(_)));
        (!name.is_empty() && !is_here()).then_some(name)
    }
}

/// Gives images their names in full, as aegisd knows them.
pub(super) fn name_images(plan: &mut Plan, problems: &mut Vec<Problem>) {
    for wish in &mut plan.wishes {
        let Some(image) = &wish.spec.image else {
            continue;
        };
        match images::full_name(image) {
            Ok(name) => wish.spec.image = Some(name),
            Err(failure) => problems.push(Problem::Image {
                name: wish.handle.clone(),
                image: image.clone(),
                why: failure.message(),
            }),
        }
    }
}

async fn differences(client: &Client, wish: &Wish) -> Result<Vec<Difference>, Failure> {
    let handle = wish.handle.as_str();
    let what = format!("compare '{handle}'");
    let instance = client.instance(handle, &what).await?;
    let found = instance.compare(&wish.spec.to_dict()).await;
    let found = found.map_err(Failure::call(what))?;
    let difference = |(name, have, asked)| Difference { name, have, asked };
    Ok(found.into_iter().map(difference).collect())
}

async fn newest(client: &Client, handle: &Handle) -> Result<Option<Frame>, Failure> {
    let options = ReadOptions {
        limit: Some(1),
        newest: true,
        ..ReadOptions::default()
    };
    let newest = client.some_messages(handle.as_str(), &options).await?;
    Ok(newest.into_iter().next())
}

/// Why nobody can listen at an address now, if so.
fn held(address: SocketAddr) -> Option<(SocketAddr, String)> {
    let error = TcpListener::bind(address).err()?;
    let by = match error.kind() {
        ErrorKind::AddrInUse => "another program".to_owned(),
        ErrorKind::PermissionDenied => "the kernel, for root".to_owned(),
        _ => error.to_string(),
    };
    Some((address, by))
}

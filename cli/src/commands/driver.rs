//! Event drivers and their types, from flags.

use dispatch_api::driver::Setting;
use dispatch_api::{Driver, DriverType};

use super::create::{link, tags};
use super::{Result, Session, archive};
use crate::args::{CreateDriver, CreateDriverType, Set};
use crate::names;

fn settings(set: Set) -> Vec<Setting> {
    let setting = |text: String| {
        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
        Setting { key: key.to_owned(), value: value.to_owned() }
    };
    set.set.into_iter().map(setting).collect()
}

/// A new driver.
///
/// # Errors
/// A link that is none.
pub fn new(args: CreateDriver) -> Result<Driver> {
    Ok(Driver {
        name: if args.name.is_empty() { names::generate() } else { args.name },
        driver_type: args.driver_type,
        config: settings(args.set),
        secrets: args.secret,
        memory: args.memory.unwrap_or_default(),
        cpu: args.cpu.unwrap_or_default(),
        egress_allow: args.allow,
        links: args.link.iter().map(|text| link(text)).collect::<Result<_>>()?,
        tags: tags(args.application),
        ..Driver::default()
    })
}

/// A new type; the server is given its image where that comes as files.
///
/// # Errors
/// The files cannot be read, or the server does not take them.
pub async fn new_type(session: &Session, args: CreateDriverType) -> Result<DriverType> {
    let mut image = args.image;
    archive::give(session, &mut image, |path| Ok(path.into())).await?;
    Ok(DriverType {
        name: args.name,
        image,
        expose: args.expose,
        config: settings(args.set),
        registry_secret: args.registry_secret,
        tags: tags(args.application),
        ..DriverType::default()
    })
}

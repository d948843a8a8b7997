//! `dispatch create`.

use std::collections::BTreeMap;
use std::path::Path;

use dispatch_api::client::Api;
use dispatch_api::{
    BaseImage, Endpoint, Function, Image, Link, Retries, RuntimeDependencies, Schema, Secret,
    SystemDependencies, Tag, tag,
};

use super::{Session, driver, file, schedule, subscription, wait};
use crate::args::{
    Create, CreateBaseImage, CreateEndpoint, CreateFunction, CreateImage, CreateSecret, Egress,
    Format, FunctionSettings, ImageSettings,
};
use crate::error::{Error, Result};
use crate::nouns::{Built, Noun};
use crate::{input, output, pack};

/// Creates one resource.
///
/// # Errors
/// What is wrong with the flags, or what the server says.
pub async fn run(session: &Session, noun: Create) -> Result {
    match noun {
        Create::BaseImage(args) => {
            let wait = args.wait;
            let mut image = base_image(args);
            super::archive::give(session, &mut image.docker_url, |path| Ok(path.into())).await?;
            let created = session.client.create(&image).await?;
            built(session, "Created", created, wait).await
        }
        Create::Image(args) => {
            let wait = args.settings.wait;
            let created = session.client.create(&image(args)?).await?;
            built(session, "Created", created, wait).await
        }
        Create::Function(args) => {
            let wait = args.settings.wait;
            let created = session.client.create(&function(*args)?).await?;
            built(session, "Created", created, wait).await
        }
        Create::Secret(args) => create(session, secret(args)?).await,
        Create::Api(args) => create(session, Api(endpoint(args))).await,
        Create::Endpoint(args) => create(session, endpoint(args)).await,
        Create::Schedule(args) => create(session, schedule::new(args)?).await,
        Create::Subscription(args) => {
            let created = session.client.create(&subscription::new(*args)?).await?;
            // In lower case, as scripts know it.
            output::done(
                &format!("created subscription: {}", created.name),
                &created,
                &session.settings,
            )
        }
        Create::EventDriver(args) => create(session, driver::new(*args)?).await,
        Create::EventDriverType(args) => {
            create(session, driver::new_type(session, args).await?).await
        }
        Create::SeedImages(seed) => {
            file::seed(session, file::Action::Create, seed.output_file.as_deref()).await
        }
    }
}

async fn create<T: Noun>(session: &Session, item: T) -> Result {
    let created = session.client.create(&item).await?;
    let message = format!("Created {}: {}", T::WORD, created.name());
    output::done(&message, &created, &session.settings)
}

/// Says what was done, and waits for the end of the build if asked to. What is shown in another
/// form than a message is shown as it is at the end.
///
/// # Errors
/// Why it could not be built.
pub async fn built<T: Built>(session: &Session, done: &str, item: T, wait: bool) -> Result {
    let settings = &session.settings;
    let message = format!("{done} {}: {}", T::WORD, item.name());
    if !wait {
        return output::done(&message, &item, settings);
    }
    if settings.format == Format::Table {
        output::line(&message)?;
        wait::built(session, item).await?;
        return Ok(());
    }
    output::one(&wait::built(session, item).await?, settings)
}

/// The tags of what belongs to an application.
pub fn tags(application: Option<String>) -> Vec<Tag> {
    let tag = |value| Tag { key: tag::APPLICATION.to_owned(), value };
    application.filter(|name| !name.is_empty()).map(tag).into_iter().collect()
}

/// Puts a resource into another application.
pub fn retag(tags_now: &mut Vec<Tag>, application: Option<String>) {
    let new = tags(application);
    if !new.is_empty() {
        tags_now.retain(|tag| tag.key != tag::APPLICATION);
        tags_now.extend(new);
    }
}

fn base_image(args: CreateBaseImage) -> BaseImage {
    BaseImage {
        name: args.name,
        docker_url: args.url,
        language: args.language,
        registry_secret: args.registry_secret,
        tags: tags(args.application),
        ..BaseImage::default()
    }
}

fn image(args: CreateImage) -> Result<Image> {
    let mut image = Image { name: args.name, base_image_name: args.base_image, ..Image::default() };
    image_settings(&mut image, args.settings)?;
    Ok(image)
}

/// Puts a value where one was given.
pub fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

/// Puts what was given into an image.
///
/// # Errors
/// A file that cannot be read.
pub fn image_settings(image: &mut Image, settings: ImageSettings) -> Result {
    if let Some(path) = &settings.runtime_deps {
        let manifest = input::text(path).map_err(|cause| {
            Error::local(format!("failed to read runtime dependencies file: {cause}"))
        })?;
        image.runtime_dependencies = RuntimeDependencies { manifest };
    }
    if let Some(path) = &settings.system_deps {
        let bytes = input::read(path).map_err(|cause| {
            Error::local(format!("failed to read system dependencies file: {cause}"))
        })?;
        image.system_dependencies =
            serde_json::from_slice::<SystemDependencies>(&bytes).map_err(|error| {
                let path = path.display();
                Error::local(format!(
                    "failed to unmarshal system dependencies file: {path}: {error}"
                ))
            })?;
    }
    if !settings.build_secret.is_empty() {
        image.build_secrets = settings.build_secret;
        image.build_secrets.retain(|name| !name.is_empty());
    }
    retag(&mut image.tags, settings.application);
    Ok(())
}

fn function(args: CreateFunction) -> Result<Function> {
    let mut function = Function { name: args.name, ..Function::default() };
    function_settings(&mut function, args.settings)?;
    if let Some(path) = &args.path {
        function.source = pack::source(&function.name, &function.handler, path)?;
    }
    Ok(function)
}

/// Puts what was given into a function.
///
/// # Errors
/// A schema that cannot be read, or a malformed variable.
pub fn function_settings(function: &mut Function, settings: FunctionSettings) -> Result {
    let schema = |path: Option<&Path>| path.map(input::json).transpose();
    let Schema { input, output } = &mut function.schema;
    if let Some(value) = schema(settings.schema_in.as_deref())? {
        *input = Some(value);
    }
    if let Some(value) = schema(settings.schema_out.as_deref())? {
        *output = Some(value);
    }
    set(&mut function.image, settings.image);
    set(&mut function.handler, settings.handler);
    set(&mut function.secrets, Some(settings.secret).filter(|list| !list.is_empty()));
    set(&mut function.services, Some(settings.service).filter(|list| !list.is_empty()));
    set(&mut function.timeout, settings.timeout);
    set(&mut function.memory, settings.memory);
    set(&mut function.cpu, settings.cpu);
    set(&mut function.concurrency, settings.concurrency);
    set(&mut function.min_scale, settings.min_scale);
    if !settings.schedule.is_empty() {
        function.schedules = settings.schedule;
        function.schedules.retain(|text| !text.is_empty());
    }
    set(&mut function.max_scale, settings.max_scale);
    set(&mut function.preload, settings.preload);
    let egress = settings.egress.map(|egress| match egress {
        Egress::None => "none".to_owned(),
        Egress::Proxy => "proxy".to_owned(),
        Egress::Learn => "learn".to_owned(),
        Egress::Full => "full".to_owned(),
    });
    if matches!(settings.egress, Some(Egress::None | Egress::Full)) {
        // They say where a proxy leads, and there is none any more.
        function.egress_allow.clear();
        function.links.clear();
    }
    set(&mut function.egress, egress);
    set(&mut function.egress_allow, Some(settings.allow).filter(|list| !list.is_empty()));
    let links = settings.link.iter().map(|text| link(text)).collect::<Result<Vec<_>>>()?;
    set(&mut function.links, Some(links).filter(|list| !list.is_empty()));
    if settings.retries.is_some() || settings.retry_backoff.is_some() {
        let retries = function.retries.get_or_insert(Retries { max: 0, backoff: 1000 });
        set(&mut retries.max, settings.retries);
        set(&mut retries.backoff, settings.retry_backoff);
    }
    for variable in settings.env {
        let (key, value) = variable.split_once('=').ok_or_else(|| {
            Error::local(format!("invalid argument {variable:?} for \"--env\": use KEY=VALUE"))
        })?;
        function.environment.insert(key.to_owned(), value.to_owned());
    }
    retag(&mut function.tags, settings.application);
    Ok(())
}

/// A link from `PORT=HOST:PORT`.
///
/// # Errors
/// It is none.
pub fn link(text: &str) -> Result<Link> {
    let parts = text.split_once('=').and_then(|(port, to)| Some((port.parse().ok()?, to)));
    let (listen, to) = parts.ok_or_else(|| {
        Error::local(format!("invalid argument {text:?} for \"--link\": use PORT=HOST:PORT"))
    })?;
    Ok(Link { listen, to: to.to_owned() })
}

fn secret(args: CreateSecret) -> Result<Secret> {
    let secrets = match args.file.as_str() {
        "" => BTreeMap::new(),
        file => input::json(Path::new(file))?,
    };
    Ok(Secret { name: args.name, secrets, tags: tags(args.application), ..Secret::default() })
}

fn endpoint(args: CreateEndpoint) -> Endpoint {
    let protocols = if args.https_only { &["https"][..] } else { &["http", "https"] };
    Endpoint {
        name: args.name,
        function: args.function,
        hosts: args.domain,
        uris: args.path,
        methods: args.method,
        protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
        authentication: args.auth,
        enabled: !args.disable,
        cors: args.cors,
        tags: tags(args.application),
        ..Endpoint::default()
    }
}

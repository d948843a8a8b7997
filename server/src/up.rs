//! What `dispatch up` does beyond `dispatch server`: it makes a base image and an image for every
//! language of the machine, so that a function can be made at once.

use std::sync::Arc;
use std::time::Duration;

use dispatch_api::{BaseImage, Image, Kind, Status};
use serde_json::json;

use crate::app::App;
use crate::iam::{Caller, Role};
use crate::store::{self, NewJob};
use crate::{resource, tasks};

/// Makes the images that are missing in the default organization and waits until they are built.
/// Returns the names of those that can be used.
///
/// # Errors
/// The store cannot be written.
pub async fn seed(app: &Arc<App>) -> anyhow::Result<Vec<String>> {
    let caller = Caller {
        org: app.config.default_organization.clone(),
        project: "default".to_owned(),
        role: Role::Admin,
    };
    // Of a language with several versions, the one that its name means.
    let languages = app.runner.runtimes().into_iter().filter(|it| it.version_of.is_none());
    let languages: Vec<String> = languages.map(|runtime| runtime.language).collect();
    for language in &languages {
        let base_name = format!("{language}-base");
        let base = BaseImage {
            name: base_name.clone(),
            docker_url: format!("dispatchframework/{base_name}"),
            language: language.clone(),
            ..BaseImage::default()
        };
        create(app, &caller, Kind::BaseImage, &base_name, tasks::BASE_IMAGE, &base).await?;
        let image = Image {
            name: language.clone(),
            base_image_name: base_name,
            language: language.clone(),
            ..Image::default()
        };
        create(app, &caller, Kind::Image, language, tasks::IMAGE, &image).await?;
    }
    let mut ready = Vec::new();
    for language in languages {
        if built(app, &caller.org, &language).await? {
            ready.push(language);
        }
    }
    Ok(ready)
}

async fn create<T: serde::Serialize>(
    app: &App,
    caller: &Caller,
    kind: Kind,
    name: &str,
    job: &'static str,
    resource: &T,
) -> anyhow::Result<()> {
    let entity = resource::entity(caller, kind, name, Status::Initialized, resource)
        .map_err(|error| anyhow::anyhow!(error.problem.message))?;
    let job = NewJob {
        kind: job,
        key: entity.id.clone(),
        org: caller.org.clone(),
        payload: json!({ "name": name }),
        run_at: 0,
    };
    match app.store.create(entity, vec![job]).await {
        Ok(_) | Err(store::Error::Exists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for an image; false when its build failed or takes more than a minute.
async fn built(app: &App, org: &str, name: &str) -> anyhow::Result<bool> {
    for _ in 0..600 {
        match app.store.get(Kind::Image, org, name).await?.map(|image| image.status) {
            Some(Status::Ready) => return Ok(true),
            Some(Status::Error) | None => return Ok(false),
            Some(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Ok(false)
}

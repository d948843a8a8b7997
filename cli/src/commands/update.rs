//! `dispatch update` with a noun: read, change, write. A change by somebody else in between is
//! refused by the server, since the revision that was read is sent back.

use dispatch_api::{Function, Image, Subscription};

use super::{Session, create, schedule, subscription};
use crate::args::Update;
use crate::error::Result;
use crate::{output, pack};

/// Updates one resource.
///
/// # Errors
/// What is wrong with the flags, or what the server says.
pub async fn run(session: &Session, noun: Update) -> Result {
    let client = &session.client;
    match noun {
        Update::Image(args) => {
            let mut image: Image = client.get(&args.name).await?;
            if let Some(base) = args.base_image {
                image.base_image_name = base;
                image.base_image.clear();
            }
            let wait = args.settings.wait;
            create::image_settings(&mut image, args.settings)?;
            create::built(session, "Updated", client.update(&image).await?, wait).await
        }
        Update::Function(args) => {
            let mut function: Function = client.get(&args.name).await?;
            let wait = args.settings.wait;
            create::function_settings(&mut function, args.settings)?;
            if let Some(path) = &args.path {
                function.source = pack::source(&function.name, &function.handler, path)?;
            }
            create::built(session, "Updated", client.update(&function).await?, wait).await
        }
        Update::Schedule(args) => schedule::update(session, args).await,
        Update::Subscription(args) => {
            let mut item: Subscription = client.get(&args.name).await?;
            subscription::change(&mut item, *args)?;
            let updated = client.update(&item).await?;
            let message = format!("Updated subscription: {}", updated.name);
            output::done(&message, &updated, &session.settings)
        }
    }
}

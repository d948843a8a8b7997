use dispatch_api::{Kind, Status};
use proptest::prelude::*;

use super::super::{Error, Page, RunFilter, RunRow};
use super::{entity, function, run, store};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[derive(Clone, Debug)]
struct Sample {
    function: bool,
    created: i64,
    status: Status,
    dead: bool,
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![Just(Status::Ready), Just(Status::Error), Just(Status::Initialized)]
}

fn sample() -> impl Strategy<Value = Sample> {
    (any::<bool>(), -2i64..6, status(), any::<bool>())
        .prop_map(|(function, created, status, dead)| Sample { function, created, status, dead })
}

type Wanted = (Option<bool>, Option<usize>, Option<Status>, Option<bool>, usize);

fn wanted() -> impl Strategy<Value = Wanted> {
    use proptest::option::of;
    (of(any::<bool>()), of(0..40usize), of(status()), of(any::<bool>()), 1..7usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Pages put together are the whole list: names in the order of their bytes, each once.
    #[test]
    fn pages_of_entities_make_the_list(
        names in proptest::collection::btree_set("[A-Za-z0-9_][A-Za-z0-9_-]{0,4}", 0..25),
        limit in 1..9usize,
    ) {
        runtime().block_on(async {
            let (_dir, store) = store().await;
            // Not in order.
            let creates = names.iter().rev().map(|name| {
                store.create(entity(Kind::Image, "o", name), Vec::new())
            });
            for created in futures_util::future::join_all(creates).await {
                created.unwrap();
            }
            let (mut walked, mut page) = (Vec::new(), Page { limit: Some(limit), after: None });
            loop {
                let part = store.list(Kind::Image, "o", page.clone()).await.unwrap();
                let last = part.len() < limit;
                assert!(part.len() <= limit);
                walked.extend(part.into_iter().map(|entity| entity.name));
                page.after = walked.last().cloned();
                if last {
                    break;
                }
            }
            let whole = store.list(Kind::Image, "o", Page::default()).await.unwrap();
            let whole: Vec<_> = whole.into_iter().map(|entity| entity.name).collect();
            assert_eq!(walked, whole);
            assert_eq!(whole, names.into_iter().collect::<Vec<_>>());
        });
    }

    /// Whatever the filter, pages put together are what a filter in memory finds, newest first.
    #[test]
    fn pages_of_runs_are_what_the_filter_means(
        samples in proptest::collection::vec(sample(), 0..40),
        (of_f, since, status, dead, limit) in wanted(),
    ) {
        runtime().block_on(async {
            let (_dir, store) = store().await;
            let (f, g) = (function(&store, "f").await, function(&store, "g").await);
            let rows = samples.iter().enumerate().map(|(n, sample)| RunRow {
                status: sample.status,
                dead: sample.dead,
                ..run(if sample.function { &f } else { &g }, &format!("r{n}"), sample.created)
            });
            // One by one, so that each has its own time of modification.
            let writes = rows.map(|row| store.record_runs(vec![row]));
            for written in futures_util::future::join_all(writes).await {
                written.unwrap();
            }
            let mut all = store.runs("o", RunFilter::default()).await.unwrap();
            assert_eq!(all.len(), samples.len());
            let mut times: Vec<_> = all.iter().map(|row| row.modified).collect();
            times.sort_unstable();
            let since = since.and_then(|n| times.get(n).copied());
            let function = of_f.map(|of_f| if of_f { "f" } else { "g" }.to_owned());
            let filter = RunFilter { function, since, status, dead, limit: Some(limit), after: None };
            let (mut walked, mut page) = (Vec::new(), filter.clone());
            loop {
                let part = store.runs("o", page.clone()).await.unwrap();
                let last = part.len() < limit;
                assert!(part.len() <= limit);
                page.after = part.last().map(RunRow::cursor);
                walked.extend(part);
                if last {
                    break;
                }
            }
            all.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
            all.retain(|row| {
                filter.function.as_ref().is_none_or(|name| *name == row.function)
                    && since.is_none_or(|since| row.modified > since)
                    && status.is_none_or(|status| row.status == status)
                    && dead.is_none_or(|dead| row.dead == dead)
            });
            assert_eq!(walked, all);
        });
    }
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused_and_no_way_into_the_statement() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    store.record_runs(vec![run(&f, "r", 5)]).await.unwrap();
    for after in ["", "5", "x.r", ".", "5;.r", "99999999999999999999.r"] {
        let filter = RunFilter { after: Some(after.to_owned()), ..RunFilter::default() };
        let refused = store.runs("o", filter).await;
        assert!(
            matches!(&refused, Err(Error::Refused(p)) if p.code == 400),
            "{after}: {refused:?}"
        );
    }
    for after in ["6.", "6.' OR 1=1 --", "6.$1?", "5.s"] {
        let filter = RunFilter { after: Some(after.to_owned()), ..RunFilter::default() };
        assert_eq!(store.runs("o", filter).await.unwrap().len(), 1, "{after}");
    }
    let filter = RunFilter { function: Some("?' $9".to_owned()), ..RunFilter::default() };
    assert_eq!(store.runs("o", filter).await.unwrap(), []);
}

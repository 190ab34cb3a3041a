//! Step three: what the request refers to, all of it live, on a view no older than the request (`sts.md` 4, 5).

use std::sync::Arc;

use caracal_core::claims::{Claims, SubjectType};
use caracal_core::delegation::{Broken, Path};
use caracal_core::id::{AuthorityRecordId, ZoneId};
use caracal_core::refusal::Refusal;
use caracal_core::session::Session;
use caracal_store::Store;
use caracal_store::change::Entity;
use caracal_store::fence::Stamp;
use caracal_store::journal::NewRecord;
use caracal_store::path::{Asked, Record, RecordStatus, References};
use quick_cache::sync::Cache;

use crate::authenticate::Authenticated;
use crate::refusals;
use crate::request::{Reference, TokenRequest};

/// A request whose references hold.
pub(crate) struct Resolved {
    pub(crate) who: Authenticated,
    /// The line of Sessions and edges; without the record.
    pub(crate) references: Arc<References>,
    pub(crate) path: Option<Path>,
    pub(crate) session: Option<Session>,
    /// The record the exchange names, by form or by token.
    pub(crate) asked: Asked,
    /// Claims of the verified subject token.
    pub(crate) subject: Option<Arc<caracal_crypto::verified::VerifiedMandate>>,
}

/// What warm exchanges refer to, each part good while nothing it was made of has changed. A Session's line is the same from call to call and
/// the record of a mandate never is, so they are remembered apart.
pub(crate) struct Known {
    store: Store,
    lines: Cache<(ZoneId, Asked), Arc<References>>,
    records: Cache<(ZoneId, AuthorityRecordId), Arc<Recorded>>,
}

/// A record, and as of when.
struct Recorded {
    stamp: Stamp,
    record: Record,
}

/// What was found of what was asked.
pub(crate) struct Found {
    line: Arc<References>,
    record: Option<Arc<Recorded>>,
}

impl Known {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, lines: Cache::new(65_536), records: Cache::new(65_536) }
    }

    /// Loads references, or finds them good. Absence is never remembered.
    async fn get(&self, zone: ZoneId, asked: Asked) -> Result<Found, Refusal> {
        let line = self.line(zone, Asked { record: None, ..asked }).await?;
        let record = match asked.record {
            Some(id) => self.record(zone, id).await?,
            None => None,
        };
        Ok(Found { line, record })
    }

    /// Reads again, whatever is remembered: a denial by elapsed time looks at the row first, because leases are extended silently.
    async fn again(&self, zone: ZoneId, asked: Asked) -> Result<Found, Refusal> {
        self.lines.remove(&(zone, Asked { record: None, ..asked }));
        if let Some(id) = asked.record {
            self.records.remove(&(zone, id));
        }
        self.get(zone, asked).await
    }

    /// A record that has just become durable. Whatever is done to it is done after `stamp`, which was there before it.
    pub(crate) fn minted(&self, zone: ZoneId, stamp: Stamp, new: &NewRecord) {
        let record = Record {
            id: new.id,
            is_user: new.subject_type == SubjectType::User,
            subject: new.subject.clone(),
            application: new.application,
            status: RecordStatus::Active,
            expires_at: new.expires_at,
        };
        self.records.insert((zone, new.id), Arc::new(Recorded { stamp, record }));
    }

    async fn line(&self, zone: ZoneId, asked: Asked) -> Result<Arc<References>, Refusal> {
        if let Some(found) = self.lines.get(&(zone, asked)) {
            if self.store.fence().good(zone, found.stamp, &found.read) {
                return Ok(found);
            }
            self.lines.remove(&(zone, asked));
        }
        let loaded = Arc::new(self.load(zone, asked).await?);
        let complete = (asked.session.is_none() || loaded.session.is_some()) && (asked.edge.is_none() || !loaded.edges.is_empty());
        // A slow load must not put back what a change took out: its stamp says how old it is, and good() looks at it on every use.
        if complete && self.store.fence().good(zone, loaded.stamp, &loaded.read) {
            self.lines.insert((zone, asked), Arc::clone(&loaded));
        }
        Ok(loaded)
    }

    async fn record(&self, zone: ZoneId, id: AuthorityRecordId) -> Result<Option<Arc<Recorded>>, Refusal> {
        let read = [Entity::record(id)];
        if let Some(found) = self.records.get(&(zone, id)) {
            if self.store.fence().good(zone, found.stamp, &read) {
                return Ok(Some(found));
            }
            self.records.remove(&(zone, id));
        }
        let loaded = self.load(zone, Asked { record: Some(id), ..Asked::default() }).await?;
        let stamp = loaded.stamp;
        let found = loaded.record.map(|record| Arc::new(Recorded { stamp, record }));
        if let Some(found) = &found
            && self.store.fence().good(zone, stamp, &read)
        {
            self.records.insert((zone, id), Arc::clone(found));
        }
        Ok(found)
    }

    async fn load(&self, zone: ZoneId, asked: Asked) -> Result<References, Refusal> {
        self.store.references(zone, asked).await.map_err(refusals::unavailable)
    }
}

/// Resolves the references of a direct exchange (3.1, 3.2, 3.7).
pub(crate) async fn direct(who: Authenticated, request: &TokenRequest, known: &Known) -> Result<Resolved, Refusal> {
    if request.edge != Reference::Absent && request.session.is_absent() {
        return Err(refusals::edge());
    }
    if request.record == Reference::Nonsense {
        return Err(refusals::record());
    }
    if request.session == Reference::Nonsense {
        return Err(if request.edge.is_absent() { refusals::session() } else { refusals::edge() });
    }
    if request.edge == Reference::Nonsense {
        return Err(refusals::edge());
    }
    let asked = Asked { record: request.record.id(), session: request.session.id(), edge: request.edge.id() };
    if asked == Asked::default() {
        let references = Arc::new(References::nothing(who.view.stamp));
        return Ok(Resolved { who, references, path: None, session: None, asked, subject: None });
    }
    let mut found = known.get(who.view.zone, asked).await?;
    let mut outcome = check_direct(&who, &found, asked);
    if outcome.is_err() {
        found = known.again(who.view.zone, asked).await?;
        outcome = check_direct(&who, &found, asked);
    }
    let (session, path) = outcome?;
    Ok(Resolved { who, references: found.line, path, session, asked, subject: None })
}

fn check_direct(who: &Authenticated, found: &Found, asked: Asked) -> Result<(Option<Session>, Option<Path>), Refusal> {
    let now = who.fresh.now;
    if asked.record.is_some() {
        let application = who.application.to_string();
        let own = found.record().filter(|r| !r.is_user && r.subject == application);
        let own = own.ok_or_else(refusals::record)?;
        if !own.is_live(now) {
            return Err(ended(refusals::record(), Some(if own.status == RecordStatus::Revoked { "revoked" } else { "expired" })));
        }
    }
    lineage(who, &found.line, asked)
}

impl Found {
    fn record(&self) -> Option<&Record> {
        self.record.as_deref().map(|found| &found.record)
    }
}

/// The Session and edge rules of 5.2 and 5.3, the same for every form.
fn lineage(who: &Authenticated, references: &References, asked: Asked) -> Result<(Option<Session>, Option<Path>), Refusal> {
    let now = who.fresh.now;
    let Some(session) = asked.session else { return Ok((None, None)) };
    if asked.edge.is_none() {
        let own = references.session.as_ref().filter(|s| s.application == who.application).ok_or_else(refusals::session)?;
        return match own.over(now) {
            None => Ok((Some(own.clone()), None)),
            state => Err(ended(refusals::session(), state)),
        };
    }
    let path = Path::check(references.edges.clone(), references.sessions.clone(), now).map_err(|broken| match broken {
        Broken::Edge(_) | Broken::Session(_) | Broken::Discontinuous | Broken::TooLong => {
            let known = references.edges.last().filter(|e| e.issuer == who.application || e.receiver == who.application);
            ended(refusals::edge(), known.and_then(|edge| edge.over(now)))
        }
    })?;
    if path.presented().target != session || path.target().application != who.application {
        return Err(refusals::edge());
    }
    let target = path.target().clone();
    Ok((Some(target), Some(path)))
}

/// Says how an object that the caller may know is over.
fn ended(refusal: Refusal, state: Option<&'static str>) -> Refusal {
    Refusal { state, ..refusal }
}

/// Resolves the references of a Gateway exchange (3.5): everything comes from the presented mandate.
pub(crate) async fn presented(
    who: Authenticated,
    mandate: Arc<caracal_crypto::verified::VerifiedMandate>,
    known: &Known,
) -> Result<Resolved, Refusal> {
    let claims = &mandate.claims;
    let asked = Asked { record: Some(claims.sid), session: claims.session, edge: claims.edge() };
    let mut found = known.get(who.view.zone, asked).await?;
    let mut outcome = check_presented(&who, &found, asked, claims);
    if outcome.is_err() {
        found = known.again(who.view.zone, asked).await?;
        outcome = check_presented(&who, &found, asked, claims);
    }
    let (session, path) = outcome?;
    Ok(Resolved { who, references: found.line, path, session, asked, subject: Some(mandate) })
}

fn check_presented(
    who: &Authenticated,
    found: &Found,
    asked: Asked,
    claims: &Claims,
) -> Result<(Option<Session>, Option<Path>), Refusal> {
    let kind = claims.sub_type == SubjectType::User;
    let own = |r: &&Record| r.is_live(who.fresh.now) && r.subject == claims.sub && r.is_user == kind;
    found.record().filter(own).ok_or_else(refusals::record)?;
    if claims.client_id != who.application {
        return Err(refusals::record());
    }
    lineage(who, &found.line, asked)
}

#[cfg(test)]
mod tests {
    use caracal_core::id::{ApplicationId, Jti, SessionId};
    use caracal_core::message::Producer;
    use caracal_core::scope::Scopes;
    use caracal_core::session::Lifecycle;
    use caracal_core::time::Time;
    use caracal_crypto::seal::{Kek, Keks};
    use caracal_crypto::verified::VerifiedMandate;
    use caracal_custody::{BUILTIN, Custody};
    use caracal_host::World;
    use caracal_store::coordination::sessions;
    use caracal_store::fence::Fresh;
    use caracal_store::journal::Entry;
    use caracal_store::management::{Application, NewApplication, NewZone, Zone};
    use caracal_store::{StoreConfig, Value};
    use caracal_testkit::Database;
    use serde_json::json;

    use super::*;
    use crate::request::Presented;
    use crate::view::Views;

    /// A zone with one application, and what this process knows of it.
    struct Fixture {
        store: Store,
        world: World,
        zone: ZoneId,
        application: ApplicationId,
        views: Views,
        known: Known,
        database: Database,
    }

    async fn each() -> Vec<Fixture> {
        let mut all = Vec::new();
        for database in caracal_testkit::backends().await {
            let world = World::system();
            let config =
                StoreConfig { database_url: database.url().map(str::to_owned), dir: database.dir().to_owned(), connections: 4 };
            let store = Store::open(&config, world.clone(), None).await.unwrap();
            let kek = Kek::from_hex("101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e30").unwrap();
            let custody = Custody::open(&store, Keks::new(kek, None), world.clone(), BUILTIN).await.unwrap();
            let (zone, application): (ZoneId, ApplicationId) = (world.mint(), world.mint());
            let new = NewZone { id: zone, name: "z".into(), slug: zone.to_string(), dcr_enabled: false, by: "t".into() };
            let own =
                NewApplication { id: application, zone, name: "a".into(), traits: vec![], verifier: String::new(), by: "t".into() };
            let made = store.door::<_, (), _>(None, Producer::Api, move |door| {
                Box::pin(async move {
                    Zone::insert(door, new).await?;
                    Ok(Application::insert(door, own).await?)
                })
            });
            made.await.unwrap();
            let views = Views::new(store.clone(), custody, world.clone());
            let known = Known::new(store.clone());
            all.push(Fixture { store, world, zone, application, views, known, database });
        }
        all
    }

    impl Fixture {
        async fn record(&self, id: AuthorityRecordId) -> NewRecord {
            let record = NewRecord {
                id,
                subject_type: SubjectType::Application,
                subject: self.application.to_string(),
                application: self.application,
                parent: None,
                expires_at: self.world.now().plus_secs(3600),
                at: self.world.now(),
            };
            let entry = Entry { zone: Some(self.zone), record: Some(record.clone()), ..Entry::default() };
            self.store.journal().commit(entry).await.unwrap();
            record
        }

        /// A Session that lives by a lease.
        async fn service(&self, deadline: Time) -> SessionId {
            let new = sessions::NewSession {
                id: self.world.mint(),
                zone: self.zone,
                application: self.application,
                record: self.world.mint(),
                user: false,
                parent: None,
                depth: 0,
                lifecycle: Lifecycle::Service { deadline },
                labels: vec![],
                metadata: json!({}),
            };
            let id = new.id;
            let made = self.store.door::<_, (), _>(Some(self.zone), Producer::Coordinator, move |door| {
                Box::pin(async move { Ok(sessions::insert(door, &new).await?) })
            });
            made.await.unwrap();
            id
        }

        /// Changes a row of the zone and tells nobody, unless of `entity`.
        async fn change(&self, sql: &'static str, values: Vec<Value>, entity: Option<Entity>) {
            let done = self.store.door::<_, (), _>(Some(self.zone), Producer::Api, move |door| {
                Box::pin(async move {
                    assert_eq!(door.execute(sql, values).await?, 1);
                    if let Some(entity) = entity {
                        door.changed(entity);
                    }
                    Ok(())
                })
            });
            done.await.unwrap();
        }

        /// The application, asking at this time.
        async fn who(&self, now: Time) -> Authenticated {
            let (view, fresh) = self.views.fresh(self.zone).await.unwrap().unwrap();
            Authenticated { view, fresh: Fresh { now, ..fresh }, application: self.application }
        }

        /// Why a Session may not be used at this time: by a mandate on this record, or by the form of a direct exchange.
        async fn refused(&self, session: SessionId, mandate: Option<AuthorityRecordId>, now: Time) -> Option<&'static str> {
            let who = self.who(now).await;
            let outcome = if let Some(sid) = mandate {
                let claims = json!({
                    "iss": "i", "sub": self.application, "aud": ["i"], "exp": 1, "iat": 0, "jti": self.world.mint::<Jti>(),
                    "zone_id": self.zone, "client_id": self.application, "sid": sid, "root_sid": sid, "use": "gateway",
                    "sub_type": "application", "agent_session_id": session,
                });
                let claims = serde_json::from_value(claims).unwrap();
                presented(who, Arc::new(VerifiedMandate { claims, kid: "k".into(), digest: [0; 32] }), &self.known).await
            } else {
                let request = TokenRequest {
                    zone: self.zone.to_string(),
                    application: self.application.to_string(),
                    secret: String::new().into(),
                    resources: vec![],
                    scopes: Scopes::none(),
                    presented: Presented::Nothing,
                    record: Reference::Absent,
                    session: Reference::Named(session),
                    edge: Reference::Absent,
                    ttl: None,
                    approval: None,
                    bound: false,
                    operation: None,
                };
                direct(who, &request, &self.known).await
            };
            outcome.err().map(|refusal| refusal.reason)
        }
    }

    #[tokio::test]
    async fn a_record_that_was_minted_here_and_then_revoked_is_not_remembered_as_live() {
        for f in each().await {
            let stamp = f.store.fence().fresh(f.zone).await.unwrap().stamp;
            let id = f.world.mint();
            let record = f.record(id).await;
            f.known.minted(f.zone, stamp, &record);
            let status = async || {
                f.store.fence().fresh(f.zone).await.unwrap();
                f.known.record(f.zone, id).await.unwrap().map(|found| found.record.status)
            };
            assert_eq!(status().await, Some(RecordStatus::Active), "{}", f.database.name());
            let sql = "UPDATE authority_records SET status = 'revoked' WHERE id = $1";
            f.change(sql, vec![Value::id(id)], Some(Entity::record(id))).await;
            assert_eq!(status().await, Some(RecordStatus::Revoked), "{}", f.database.name());
        }
    }

    #[tokio::test]
    async fn a_lease_that_seems_to_have_lapsed_is_looked_at_again() {
        for f in each().await {
            let (now, sid) = (f.world.now(), f.world.mint());
            f.record(sid).await;
            for mandate in [None, Some(sid)] {
                let told = format!("{}: {mandate:?}", f.database.name());
                let session = f.service(now.plus_secs(60)).await;
                assert_eq!(f.refused(session, mandate, now).await, None, "{told}");
                let sql = "UPDATE sessions SET heartbeat_deadline_at = $2 WHERE id = $1";
                f.change(sql, vec![Value::id(session), now.plus_secs(600).into()], None).await;
                assert_eq!(f.refused(session, mandate, now.plus_secs(120)).await, None, "{told}: it was renewed");
                assert_eq!(f.refused(session, mandate, now.plus_secs(700)).await, Some("session_not_usable"), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_not_there_is_looked_for_each_time() {
        for f in each().await {
            let (record, session, edge) = (f.world.mint(), f.world.mint(), f.world.mint());
            let asked = Asked { record: Some(record), session: Some(session), edge: None };
            let with_edge = Asked { edge: Some(edge), ..asked };
            let there = async |asked| {
                let found = f.known.get(f.zone, asked).await.unwrap();
                (found.record.is_some(), found.line.session.is_some(), !found.line.edges.is_empty())
            };
            assert_eq!(there(asked).await, (false, false, false), "{}", f.database.name());
            assert_eq!(there(with_edge).await, (false, false, false), "{}", f.database.name());
            // Each comes to be without a word: whoever remembered its absence would go on not seeing it.
            f.record(record).await;
            let (source, other) = (f.service(f.world.now().plus_secs(60)).await, f.service(f.world.now().plus_secs(60)).await);
            f.change("UPDATE sessions SET id = $1 WHERE id = $2", vec![Value::id(session), Value::id(other)], None).await;
            assert_eq!(there(asked).await, (true, true, false), "{}", f.database.name());
            assert_eq!(there(with_edge).await, (true, true, false), "{}", f.database.name());
            let sql = "INSERT INTO delegations (id, zone_id, source_session_id, target_session_id, issuer_application_id, \
                       receiver_application_id, scopes, constraints, status, expires_at, created_at) \
                       SELECT $1, zone_id, $2, id, application_id, application_id, '[]', '{}', 'active', started_at, started_at \
                       FROM sessions WHERE id = $3";
            f.change(sql, vec![Value::id(edge), Value::id(source), Value::id(session)], None).await;
            assert_eq!(there(with_edge).await, (true, true, true), "{}", f.database.name());
        }
    }
}

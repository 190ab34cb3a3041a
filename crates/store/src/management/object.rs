//! What every managed object of a zone has in common: how it is read, listed, made, changed and archived.

use std::fmt::Write as _;
use std::future::Future;

use caracal_core::id::{Id, ZoneId};
use caracal_core::time::Time;
use serde::Serialize;

use super::{millis, opt_millis};
use crate::change::ViewChange;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// Columns and their values.
pub type Fields = Vec<(&'static str, Value)>;

/// Who made and changed a row, and when. Nothing here comes from an assistant, so its marks are always false.
#[derive(Clone, Debug, Serialize)]
pub struct Stamps {
    /// Who made it.
    pub created_by: String,
    /// Whether an assistant did.
    pub created_via_operator: bool,
    /// Who changed it last.
    pub updated_by: Option<String>,
    /// Whether an assistant did.
    pub updated_via_operator: bool,
    /// When it was made.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
    /// When it was changed last.
    #[serde(serialize_with = "opt_millis")]
    pub updated_at: Option<Time>,
}

impl Stamps {
    /// From `created_by, updated_by, created_at, updated_at`, beginning at a column.
    pub(crate) fn of_row(row: &Row, at: usize) -> Result<Self, StoreError> {
        Ok(Self {
            created_by: row.text(at)?,
            created_via_operator: false,
            updated_by: row.opt_text(at + 1)?,
            updated_via_operator: false,
            created_at: row.time(at + 2)?,
            updated_at: row.opt_time(at + 3)?,
        })
    }
}

/// Which part of a list, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Slice<I> {
    /// Only rows before this place: when it was made, and its id.
    pub before: Option<(Time, I)>,
    /// At most this many.
    pub limit: usize,
}

impl<I: Id> Slice<I> {
    /// The rest of a statement that lists: what else must hold, the order and the bound.
    pub(crate) fn close(self, mut wanted: Where) -> (String, Vec<Value>) {
        if let Some((at, id)) = self.before {
            wanted.and("(created_at, id) < (?, ?)", [at.into(), Value::id(id)]);
        }
        let (condition, args) = wanted.into_parts();
        (format!("WHERE {condition} ORDER BY created_at DESC, id DESC LIMIT {}", self.limit), args)
    }
}

/// Conditions that hold together, with their values.
#[derive(Default)]
pub(crate) struct Where {
    text: String,
    args: Vec<Value>,
}

impl Where {
    /// A condition; each `?` stands for one value.
    pub(crate) fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        if !self.text.is_empty() {
            self.text += " AND ";
        }
        let mut pieces = condition.split('?');
        self.text += pieces.next().unwrap_or_default();
        for (piece, value) in pieces.zip(values) {
            self.args.push(value);
            let _ = write!(self.text, "${}{piece}", self.args.len());
        }
    }

    /// A condition on one value, where there is one.
    pub(crate) fn and_some(&mut self, condition: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.and(condition, [value.into()]);
        }
    }

    /// The text after `WHERE`, and the values.
    pub(crate) fn into_parts(self) -> (String, Vec<Value>) {
        (if self.text.is_empty() { "1 = 1".to_owned() } else { self.text }, self.args)
    }
}

/// A managed object of a zone.
pub trait Object: Serialize + Clone + Send + Sized + 'static {
    /// Its id.
    type Id: Id;
    /// Where it is kept.
    const TABLE: &'static str;
    /// What is read of a row, in the order of [`Self::of_row`].
    const COLUMNS: &'static str;
    /// Its word in `caracal.zones.invalidate`; none when no view is made of it.
    const VIEWED_AS: Option<&'static str>;

    /// Reads a row.
    fn of_row(row: &Row) -> Result<Self, StoreError>;

    /// Its id, and who made and changed it.
    fn head(&self) -> (Self::Id, &Stamps);

    /// A live one of the zone.
    fn get(tx: &mut Tx<'_>, zone: ZoneId, id: Self::Id) -> impl Future<Output = Result<Option<Self>, StoreError>> + Send {
        async move {
            let sql =
                format!("SELECT {} FROM {} WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL", Self::COLUMNS, Self::TABLE);
            tx.first(sql, vec![Value::id(id), Value::id(zone)]).await?.as_ref().map(Self::of_row).transpose()
        }
    }

    /// Those of the zone, live or archived, newest first.
    fn list(
        tx: &mut Tx<'_>,
        zone: ZoneId,
        archived: bool,
        slice: Slice<Self::Id>,
    ) -> impl Future<Output = Result<Vec<Self>, StoreError>> + Send {
        async move {
            let mut wanted = Where::default();
            wanted.and("zone_id = ?", [Value::id(zone)]);
            wanted.and(if archived { "archived_at IS NOT NULL" } else { "archived_at IS NULL" }, []);
            let (rest, args) = slice.close(wanted);
            let rows = tx.all(format!("SELECT {} FROM {} {rest}", Self::COLUMNS, Self::TABLE), args).await?;
            rows.iter().map(Self::of_row).collect()
        }
    }

    /// How many live ones the zone has.
    fn count(tx: &mut Tx<'_>, zone: ZoneId) -> impl Future<Output = Result<u64, StoreError>> + Send {
        async move {
            let sql = format!("SELECT count(*) FROM {} WHERE zone_id = $1 AND archived_at IS NULL", Self::TABLE);
            tx.first(sql, vec![Value::id(zone)]).await?.map_or(Ok(0), |row| row.count(0))
        }
    }

    /// Makes one of these fields; what a uniqueness rule does not allow is [`StoreError::Refused`].
    fn make(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: Self::Id,
        fields: Fields,
        by: &str,
    ) -> impl Future<Output = Result<Self, StoreError>> + Send {
        async move {
            let mut all: Fields = vec![("id", Value::id(id)), ("zone_id", Value::id(zone))];
            all.extend(fields);
            all.extend([("created_by", by.into()), ("created_at", door.now().into())]);
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            let places: Vec<String> = (1..=all.len()).map(|n| format!("${n}")).collect();
            let sql = format!("INSERT INTO {} ({}) VALUES ({})", Self::TABLE, names.join(", "), places.join(", "));
            door.execute(sql, all.into_iter().map(|(_, value)| value).collect()).await?;
            Self::tell(door, id, "create");
            Self::get(door.tx(), zone, id).await?.ok_or_else(|| StoreError::inconsistent(Self::TABLE, "id", "vanished"))
        }
    }

    /// Changes these fields of a live one; `None` when there is none.
    fn change(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: Self::Id,
        fields: Fields,
        by: &str,
    ) -> impl Future<Output = Result<Option<Self>, StoreError>> + Send {
        async move {
            Ok(if set::<Self>(door, zone, id, fields, by).await? {
                Self::tell(door, id, "update");
                Self::get(door.tx(), zone, id).await?
            } else {
                None
            })
        }
    }

    /// Archives a live one; whether there was one.
    fn archive(door: &mut Door<'_>, zone: ZoneId, id: Self::Id, by: &str) -> impl Future<Output = Result<bool, StoreError>> + Send {
        async move {
            let now = door.now();
            let done = set::<Self>(door, zone, id, vec![("archived_at", now.into())], by).await?;
            if done {
                Self::tell(door, id, "archive");
            }
            Ok(done)
        }
    }

    /// Tells whoever keeps a view made of it.
    fn tell(door: &mut Door<'_>, id: Self::Id, change: &'static str) {
        if let Some(entity) = Self::VIEWED_AS {
            door.view_changed(ViewChange { entity, id: id.to_string(), change });
        }
    }
}

/// Sets fields of a live object, and who did it and when.
pub(crate) async fn set<T: Object>(
    door: &mut Door<'_>,
    zone: ZoneId,
    id: T::Id,
    fields: Fields,
    by: &str,
) -> Result<bool, StoreError> {
    let mut args = vec![Value::id(id), Value::id(zone), by.into(), door.now().into()];
    let mut sql = format!("UPDATE {} SET updated_by = $3, updated_at = $4", T::TABLE);
    for (name, value) in fields {
        args.push(value);
        let _ = write!(sql, ", {name} = ${}", args.len());
    }
    sql += " WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL";
    Ok(door.execute(sql, args).await? == 1)
}

/// Identifiers of a zone's objects that are `base`, or `base` and a number.
pub(crate) async fn identifiers_like<T: Object>(
    tx: &mut Tx<'_>,
    zone: ZoneId,
    base: &str,
    live_only: bool,
) -> Result<Vec<String>, StoreError> {
    let live = if live_only { "AND archived_at IS NULL" } else { "" };
    let sql = format!("SELECT identifier FROM {} WHERE zone_id = $1 AND (identifier = $2 OR identifier LIKE $3) {live}", T::TABLE);
    let rows = tx.all(sql, vec![Value::id(zone), base.into(), format!("{base}-%").into()]).await?;
    rows.iter().map(|row| row.text(0)).collect()
}

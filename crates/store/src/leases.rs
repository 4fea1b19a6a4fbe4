//! Devices and who may use them. Fences survive a change of leader: they only ever grow.

use sea_orm::{EntityTrait, IntoActiveModel};
use uuid::Uuid;
use warren_clock::UnixMillis;

use crate::{
    Reads, StoreError, Tx,
    entity::{device, lease},
    sql,
};

/// The right to use a device for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: Uuid,
    /// E.g. `cpu`.
    pub device: String,
    /// For which model.
    pub model: String,
    /// Name of the worker.
    pub worker: String,
    /// Its process.
    pub boot: String,
    /// Its slot.
    pub slot: i64,
    /// The wait of the slot that the lease ended.
    pub wait: i64,
    /// Higher than every earlier lease's of the device.
    pub fence: i64,
    /// `granted` or `draining`.
    pub state: String,
    /// Memory set aside for it.
    pub memory_bytes: i64,
    /// Since when.
    pub granted: UnixMillis,
    /// Until when, unless it is renewed. Renewals are not written down: a new leader gives every live lease a whole life.
    pub expires: UnixMillis,
}

/// Something that leases are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// E.g. `cpu`, `cuda:0`.
    pub name: String,
    /// Of its newest lease.
    pub last_fence: i64,
    /// Its memory budget.
    pub memory_bytes: i64,
    /// Leases at a time.
    pub max_concurrent: i64,
}

impl Tx {
    /// Records a grant and its device's newest fence. Recorded twice, it is there once.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another lease has the fence.
    pub async fn grant_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let known: Option<sql::OneId> =
            self.read().one("SELECT id FROM lease WHERE id = $1", [lease.id.into()]).await?;
        if known.is_some() {
            return Ok(());
        }
        let text = "UPDATE device SET last_fence = $2 WHERE name = $1 AND last_fence < $2";
        self.execute(text, [sql::text(&lease.device).into(), lease.fence.into()]).await?;
        let row = lease::Model {
            id: lease.id,
            device: sql::text(&lease.device),
            model: sql::text(&lease.model),
            worker: sql::text(&lease.worker),
            boot: sql::text(&lease.boot),
            slot: lease.slot,
            wait: lease.wait,
            fence: lease.fence,
            state: lease.state.clone(),
            memory_bytes: lease.memory_bytes,
            granted_ms: lease.granted.0,
            expires_ms: lease.expires.0,
        };
        lease::Entity::insert(row.into_active_model()).exec_without_returning(&*self.inner).await?;
        Ok(())
    }

    /// Changes the state of a lease. False: there is none with this id and fence.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_lease_state(&self, id: Uuid, fence: i64, state: &str) -> Result<bool, StoreError> {
        let values = [id.into(), fence.into(), state.into()];
        Ok(self.execute("UPDATE lease SET state = $3 WHERE id = $1 AND fence = $2", values).await? == 1)
    }

    /// Removes a lease. False: there is none with this id and fence.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delete_lease(&self, id: Uuid, fence: i64) -> Result<bool, StoreError> {
        Ok(self.execute("DELETE FROM lease WHERE id = $1 AND fence = $2", [id.into(), fence.into()]).await? == 1)
    }

    /// Records a device or its new limits; its fences go on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn upsert_device(&self, name: &str, memory_bytes: i64, max_concurrent: i64) -> Result<(), StoreError> {
        let text = "INSERT INTO device (name, last_fence, memory_bytes, max_concurrent) VALUES ($1, 0, $2, $3)
             ON CONFLICT (name) DO UPDATE SET memory_bytes = excluded.memory_bytes,
                 max_concurrent = excluded.max_concurrent";
        self.execute(text, [sql::text(name).into(), memory_bytes.into(), max_concurrent.into()]).await?;
        Ok(())
    }
}

impl Reads<'_> {
    /// All leases, by device and fence.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let rows: Vec<lease::Model> = self.all("SELECT * FROM lease ORDER BY device, fence", []).await?;
        Ok(rows
            .into_iter()
            .map(|row| Lease {
                id: row.id,
                device: row.device,
                model: row.model,
                worker: row.worker,
                boot: row.boot,
                slot: row.slot,
                wait: row.wait,
                fence: row.fence,
                state: row.state,
                memory_bytes: row.memory_bytes,
                granted: UnixMillis(row.granted_ms),
                expires: UnixMillis(row.expires_ms),
            })
            .collect())
    }

    /// All devices, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        let rows: Vec<device::Model> = self.all("SELECT * FROM device ORDER BY name", []).await?;
        Ok(rows
            .into_iter()
            .map(|row| Device {
                name: row.name,
                last_fence: row.last_fence,
                memory_bytes: row.memory_bytes,
                max_concurrent: row.max_concurrent,
            })
            .collect())
    }
}

-- Sites whose pages may phone a tenant, as browsers write them: https://shop.example.
ALTER TABLE tenants ADD COLUMN origins text[] NOT NULL DEFAULT '{}';
